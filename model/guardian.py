"""What a guardian does: wait until its process has ended, however it ended, then end what it started.

Run as a script, by `processes`; it imports nothing of cbnn, so that it starts at once. A line of
its standard input is JSON: ["+", kind, name] to guard something, ["-", kind, name] to forget it;
kinds are "group", a process group, and "path", a file or folder. The end of the input is the end of
the process.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path


def main() -> None:
    """Read to the end, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    guarded: dict[tuple, None] = {}
    for line in sys.stdin:
        sign, kind, name = json.loads(line)
        if sign == "+":
            guarded[kind, name] = None
        else:
            guarded.pop((kind, name), None)
    # Processes first, so that nothing writes into a folder that is being removed.
    for kind, name in sorted(guarded):
        with contextlib.suppress(OSError):
            if kind == "group":
                os.killpg(name, signal.SIGKILL)
            elif Path(name).is_dir() and not Path(name).is_symlink():
                shutil.rmtree(name, ignore_errors=True)
            else:
                Path(name).unlink()


if __name__ == "__main__":
    main()
