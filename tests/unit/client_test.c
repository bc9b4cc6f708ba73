/* The client library against a sidecar that is this test. */
int main(void) { return 0; }
