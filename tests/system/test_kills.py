"""Runs that are killed at a random moment leave no process and no rubbish, and the same command goes on.

CBNN_KILLS says how often; `python tests/system/test_kills.py 40` does the same and tells of every kill.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

N_KILLS = int(os.environ.get("CBNN_KILLS", "4"))
MARKER = "CBNN_KILL_CAMPAIGN"
PATIENCE_S, LONGEST_S = 30, 500
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
BALANCED = "(8,9)(16,16)(8,16)(4,16)(5,8)"
COMMANDS = {
    # Words, and the seconds within which they are killed: about what they take.
    "demo": (("demo", "--out", "demo"), 60),
    "sweep": (("sweep", "16x16x1u6-16C3-MP2-32C3-MP2-64FC-10FC", "--out", "sweep.db"), 12),
    "compact": (("compact", "--out", "compact", "--epochs", "2", "--widths", "1,0.5"), 40),
    "verify": (("verify", "digits-5", "--folding", BALANCED, "--images", "4", "--out", "verilog"), 5),
    "generate": (("generate", "digits-4", "--folding", BALANCED, "--out", "generated"), 3),
    "volume": (("volume", "digits-5", "--folding", BALANCED, "--images", "500"), 15),
    "evaluate": (("evaluate", "digits-5", "--images-file", "images.npy", "--labels-file", "labels.npy",
                  "--partial", "part.json"), 4),
    "fifos": (("fifos", "digits-5", "--folding", BALANCED, "--out", "fifos.json"), 4),
}


def survivors(marker: str) -> list[str]:
    """Return the command lines of the campaign's processes that are still there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (process / "environ").read_bytes():
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"{process.name} {words}")
        except OSError:  # it has just ended
            continue
    return found


class Campaign:
    """Commands in a folder of their own, killed and run again."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.draw = folder, random.Random(seed)
        (folder / "tmp").mkdir()
        (folder / "work").mkdir()
        self.marker = f"{MARKER}={folder}"
        self.environment = {**os.environ, MARKER: str(folder), "TMPDIR": str(folder / "tmp")}
        images = np.random.default_rng(seed).integers(0, 17, (80_000, 8, 8, 1), np.uint8)
        np.save(folder / "work" / "images.npy", images)
        np.save(folder / "work" / "labels.npy", np.zeros(len(images), np.int64))

    def start(self, name: str) -> subprocess.Popen:
        with (self.folder / "errors").open("w") as errors:
            return subprocess.Popen([Path(sys.executable).with_name("cbnn"), *COMMANDS[name][0]],
                                    cwd=self.folder / "work", env=self.environment, start_new_session=True,
                                    stdout=subprocess.DEVNULL, stderr=errors)

    def kill(self, name: str) -> str:
        """Kill a command at a random moment, and check what is left; return what was done."""
        number, moment = self.draw.choice(SIGNALS), self.draw.uniform(0.05, COMMANDS[name][1])
        with self.start(name) as process:
            try:
                code = process.wait(moment)
                assert code == 0, f"{name}: exit code {code}: {self.errors()}"
            except subprocess.TimeoutExpired:
                # Ctrl-C reaches all processes of a terminal, the others reach the one that they are meant for.
                (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
                begin = time.monotonic()
                process.wait(PATIENCE_S)
                assert time.monotonic() - begin < 5, f"{name} took {time.monotonic() - begin:.0f} s to end"
        self.check(f"{name}, {number.name} after {moment:.2f} s")
        return f"{name}: {number.name} after {moment:.2f} s"

    def errors(self) -> str:
        return (self.folder / "errors").read_text()[-500:]

    def check(self, what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while (left := survivors(self.marker)) and time.monotonic() < end:
            time.sleep(0.1)
        assert not left, f"{what}: still running: {left}"
        rubbish = [str(path.relative_to(self.folder)) for path in self.folder.rglob("*")
                   if fnmatch(path.name, ".*.cbnn-????????") or path.parent == self.folder / "tmp"]
        assert not rubbish, f"{what}: left {rubbish}"

    def finish(self, name: str) -> None:
        """Run a command to its end, where it was killed."""
        with self.start(name) as process:
            code = process.wait(LONGEST_S)
        assert code == 0, f"{name} does not go on, exit code {code}: {self.errors()}"
        self.check(f"{name}, to its end")


def run(n_kills: int, seed: int, folder: Path, tell=lambda text: None) -> None:
    campaign = Campaign(folder, seed)
    # The quick ones first, so that a few kills take little time.
    names = sorted(COMMANDS, key=lambda name: COMMANDS[name][1])
    killed = [names[i % len(names)] for i in range(n_kills)]
    for name in killed:
        tell(campaign.kill(name))
    for name in dict.fromkeys(killed):
        campaign.finish(name)
        tell(f"{name}: went on to its end")


@pytest.mark.slow(32)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked up in /proc")
def test_killed_runs_leave_nothing_and_go_on(tmp_path: Path) -> None:
    run(N_KILLS, 1, tmp_path)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    with tempfile.TemporaryDirectory() as name:
        run(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0, Path(name), print)
