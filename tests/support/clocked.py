"""An environment with a wall clock of its own, which the test sets (libfaketime)."""
import datetime
import os

from meshtest import TOP, Bus

RELEASE = os.environ.get("AMESH_RELEASE", os.path.join(TOP, "build/release/amesh"))  # a preloaded library and a sanitizer do not get on
LIBRARY = next((p for p in ("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1") if os.path.exists(p)), None)
HOUR = 3600


class Clocked(Bus):
    SET_BY = 0  # at the start

    def start_up(self):
        self.path = os.path.join(self.home, "clock")
        self.set_by = 0
        self.set(self.SET_BY)
        super().start_up()

    def set(self, seconds):
        """By so much more than it is now."""
        self.set_by += seconds
        with open(self.path + ".new", "w") as f:
            f.write(f"{self.set_by:+d}\n")
        os.rename(self.path + ".new", self.path)

    def now(self):
        return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=self.set_by)

    def start_env(self, *options, **how):
        fake = dict(LD_PRELOAD=LIBRARY, FAKETIME_TIMESTAMP_FILE=self.path, FAKETIME_NO_CACHE="1", FAKETIME_DONT_FAKE_MONOTONIC="1") if LIBRARY else {}
        super().start_env(*options, program=RELEASE, env=fake, **how)
