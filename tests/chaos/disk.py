"""Disks that can lose their power, be full or broken: ext4 images on loop devices, and small tmpfs."""
import ctypes
import os
import shutil
import subprocess

import sweep
from meshtest import Failed, Skipped

libc = ctypes.CDLL(None, use_errno=True)
libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
WRITE_AND_WAIT = 7  # SYNC_FILE_RANGE_WAIT_BEFORE | WRITE | WAIT_AFTER


def call(*argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"{' '.join(argv)}: {done.stderr.strip()}")


def mount(*argv):
    """A mount that this machine may not allow."""
    if os.getuid() != 0:
        raise Skipped("allowed: mounting needs root")
    done = subprocess.run(["mount", *argv], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skipped(f"allowed: this machine does not mount: {done.stderr.strip()}")


class Image:
    """An ext4 filesystem in a file, mounted at .path. cut() is the power cut: what had not reached the "disk" is gone. Kill who writes there first."""

    def __init__(self, folder, size_mib=256, options="commit=300"):
        # No commit by the clock while the image is copied: a copy that sees half of one would be no moment that ever was.
        self.folder, self.number, self.path, self.options = folder, 0, os.path.join(folder, "disk"), options
        os.makedirs(self.path)
        self.file = os.path.join(folder, "disk0.img")
        with open(self.file, "wb") as f:
            f.truncate(size_mib << 20)
        call("mkfs.ext4", "-q", "-F", self.file)
        self.mount()

    def mount(self):
        mount("-o", f"loop,{self.options}", self.file, self.path)

    def again(self):
        """Repaired and mounted again."""
        sweep.unmount(self.path)
        subprocess.run(["fsck.ext4", "-y", self.file], capture_output=True)
        self.mount()

    def some_reach_the_disk(self, random):
        """Some of the pages that nobody has synced yet are written, in no order, as a disk does it."""
        for folder, _, names in os.walk(self.path):
            for name in names:
                with open(os.path.join(folder, name), "rb") as f:
                    pages = max(1, os.fstat(f.fileno()).st_size // 4096)
                    for _ in range(random.randrange(4)):
                        first = random.randrange(pages)
                        libc.sync_file_range(f.fileno(), first * 4096, random.randrange(1, 8) * 4096, WRITE_AND_WAIT)

    def cut(self, random):
        if random.random() < 0.5:
            self.some_reach_the_disk(random)
        self.number += 1
        copy = os.path.join(self.folder, f"disk{self.number}.img")
        call("cp", "--sparse=always", self.file, copy)
        sweep.unmount(self.path)
        os.unlink(self.file)
        self.file = copy
        self.mount()

    def done(self):
        sweep.unmount(self.path)
        os.unlink(self.file)


class Tmpfs:
    def __init__(self, folder, name, size):
        self.path = os.path.join(folder, name)
        os.makedirs(self.path)
        mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", self.path)

    def resize(self, size):
        call("mount", "-o", f"remount,size={size}", self.path)

    def free_bytes(self):
        return shutil.disk_usage(self.path).free

    def done(self):
        sweep.unmount(self.path)
