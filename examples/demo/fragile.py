"""A JSON-lines agent in ten lines that kills itself the first time, as a crash would."""
import json
import os
import signal
import sys

for line in sys.stdin:
    frame = json.loads(line)
    if frame.get("method") == "task.run":
        if not os.path.exists(sys.argv[1]):
            open(sys.argv[1], "w").close()
            print("about to fall", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        print(json.dumps({"id": frame["id"], "result": f"carried, attempt {frame['params']['attempt']}"}), flush=True)
