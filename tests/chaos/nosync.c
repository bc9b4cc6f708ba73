/* A preloaded library under which nothing is ever synced: with it the campaign must find that a power cut loses what was acknowledged (tests/integration/chaos.py). */
int fsync(int fd);
int fdatasync(int fd);

__attribute__((visibility("default"))) int fsync(int fd)
{
    (void)fd;
    return 0;
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
    (void)fd;
    return 0;
}
