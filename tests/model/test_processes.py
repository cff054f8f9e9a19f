"""Processes: whatever was started ends with the process that started it, and what it wrote for nobody goes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from cbnn.model.processes import ToolError, WorkerError, completed, report, run_tool, scratch_folder, started, vanishing

PATIENCE_S = 20


def double(n: int) -> int:
    report(n)
    return 2 * n


def die_at(n: int, worst: int) -> int:
    if n == worst:
        os._exit(1)
    return n


def sleep_with_a_tool(folder: str) -> None:
    """Start a tool and a scratch folder, tell of both, and go on for ever."""
    with scratch_folder() as scratch, started(["sleep", "1000"]) as tool:
        Path(folder, f"{os.getpid()}").write_text(f"{os.getpid()} {tool.pid} {scratch}")
        time.sleep(1000)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_for(condition) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_results_come_as_they_are_done() -> None:
    heard: list[int] = []
    with closing(completed(double, range(5), heard.append)) as done:
        assert sorted(done) == [(n, 2 * n) for n in range(5)]
    assert sorted(heard) == list(range(5))
    assert list(completed(double, [])) == []


def test_a_worker_that_dies_is_told() -> None:
    with pytest.raises(WorkerError, match="a worker process died"), \
            closing(completed(partial(die_at, worst=1), [1, 2])) as done:
        list(done)


def test_workers_end_where_the_iteration_does(tmp_path: Path) -> None:
    """What is under way is not waited for, and what the workers started ends too."""
    with closing(completed(sleep_or_answer, [str(tmp_path), ""])) as done:
        next(done)
        wait_for(lambda: list(tmp_path.glob("[0-9]*")))
    assert_gone(tmp_path)


def sleep_or_answer(folder: str) -> None:
    if folder:
        sleep_with_a_tool(folder)


def assert_gone(folder: Path) -> None:
    for note in folder.glob("[0-9]*"):
        worker, tool, scratch = note.read_text().split()
        wait_for(lambda worker=worker, tool=tool: not alive(int(worker)) and not alive(int(tool)))
        wait_for(lambda scratch=scratch: not Path(scratch).exists())


MAIN = """
import sys, time
from contextlib import closing
from tests.model.test_processes import sleep_with_a_tool
from cbnn.model.processes import completed
if __name__ == "__main__":
    if sys.argv[2] == "workers":
        with closing(completed(sleep_with_a_tool, [sys.argv[1]] * 2)) as done:
            list(done)
    sleep_with_a_tool(sys.argv[1])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("who", ["itself", "workers"])
def test_all_ends_with_a_process_that_is_killed(tmp_path: Path, number: signal.Signals, who: str) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, str(tmp_path / "main.py"), str(tmp_path), who], cwd=root,
                          env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.DEVNULL) as main:
        try:
            wait_for(lambda: len(list(tmp_path.glob("[0-9]*"))) >= 1)
            time.sleep(0.2)
            main.send_signal(number)
            main.wait(PATIENCE_S)
        finally:
            main.kill()
    assert_gone(tmp_path)


def test_tools_that_fail_are_told(tmp_path: Path) -> None:
    assert run_tool(["sh", "-c", "echo out; echo err >&2; exit 3"], tmp_path, "the tool", 9) == (3, "out\nerr\n")
    with pytest.raises(ToolError, match="the tool could not be started: No such file or directory"):
        run_tool(["no-such-tool"], tmp_path, "the tool", 9)
    begin = time.monotonic()
    with pytest.raises(ToolError, match=r"the tool took more than 0\.2 s"):
        run_tool(["sh", "-c", "sleep 1000 & sleep 1000"], tmp_path, "the tool", 0.2)
    assert time.monotonic() - begin < PATIENCE_S


def test_what_vanishes_need_not_be_there(tmp_path: Path) -> None:
    with vanishing(tmp_path / "a"), vanishing(tmp_path / "b"), vanishing(tmp_path / "c"):
        (tmp_path / "a").write_text("a")
        (tmp_path / "b" / "deep").mkdir(parents=True)
    assert list(tmp_path.iterdir()) == []
