"""Processes: tools, workers and scratch folders that end with the process that started them, however it ends.

Where a process is killed it can clean nothing up itself. So each one that starts tools or writes
folders has a guardian, a small process that is told of them and waits for the end of a pipe;
workers watch for the end of their parent.
"""

import atexit
import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from cbnn.model import guardian

Job = TypeVar("Job")
GRACE_S = 5
"""Seconds that a guardian gets to end."""
POLL_S = 0.5
"""Seconds between two looks at what workers report."""


class ToolError(Exception):
    """A tool is missing, failed or took too long, or workers died: nothing can be said about results."""


class WorkerError(ToolError):
    """A worker died."""


class Terminated(BaseException):
    """A signal asked this process to end; no failure of what it was doing."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Guardian:
    """The guardian of this process; it starts with the first thing to guard."""

    def __init__(self, inherited: "_Guardian | None" = None) -> None:
        self.owner, self.lock = os.getpid(), threading.Lock()
        self.process: subprocess.Popen | None = None
        self.inherited = inherited  # that of the process that this one was forked from; it is not ours to end

    def tell(self, *words: object) -> None:
        with self.lock:
            if self.process is None:
                self.process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(Path(guardian.__file__).resolve())], stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/")
                atexit.register(self.end)
            assert self.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # somebody ended it; work goes on without
                self.process.stdin.write(json.dumps(words).encode() + b"\n")
                self.process.stdin.flush()

    def end(self) -> None:
        """Let it end, and wait until it has."""
        if self.process is not None and self.owner == os.getpid():
            assert self.process.stdin is not None
            with contextlib.suppress(OSError):
                self.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE_S)


_guardian = _Guardian()


def _guard() -> _Guardian:
    """Return this process' guardian, not the one of a process that it was forked from."""
    global _guardian
    if _guardian.owner != os.getpid():
        _guardian = _Guardian(_guardian)
    return _guardian


@contextmanager
def vanishing(path: Path) -> Iterator[None]:
    """Remove a file or folder that is made in this context at its end, or when this process ends before that."""
    name = str(path.absolute())
    _guard().tell("+", "path", name)
    try:
        yield
    finally:
        if path.is_dir() and not path.is_symlink():
            for folder, _, _ in os.walk(path):
                Path(folder).chmod(0o700)  # one that somebody made read-only could not be emptied
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        _guard().tell("-", "path", name)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a new folder for what nobody keeps."""
    path = Path(tempfile.gettempdir()) / f"cbnn-{os.getpid()}-{os.urandom(4).hex()}"
    with vanishing(path):
        path.mkdir(0o700)
        yield path


@contextmanager
def started(words: Sequence[str], **options: Any) -> Iterator[subprocess.Popen]:
    """Start a tool in a process group of its own; at the end of the context the whole group is gone."""
    with subprocess.Popen(words, start_new_session=True, stdin=subprocess.DEVNULL, **options) as process:
        _guard().tell("+", "group", process.pid)
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            _guard().tell("-", "group", process.pid)


def run_tool(words: Sequence[str], folder: Path, what: str, timeout_s: float,
             environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a tool in `folder` to its end; return its exit code and what it printed.

    Raises
    ------
    ToolError
        When it takes longer than `timeout_s`, or cannot be started.
    """
    try:
        # What a tool keeps for itself goes with the folder, even if the tool is killed.
        variables = {**os.environ, "TMPDIR": str(folder), **(environment or {})}
        with started(words, cwd=folder, env=variables, text=True, errors="replace",
                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            printed, _ = process.communicate(timeout=timeout_s)
            return process.returncode, printed
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{what} took more than {timeout_s:g} s") from error
    except OSError as error:
        raise ToolError(f"{what} could not be started: {error.strerror}") from error


_reports: Any = None


def report(value: object) -> None:
    """Tell, in a worker, how far it is; `completed` passes it on. Elsewhere it does nothing."""
    if _reports is not None:
        _reports.put(value)


def completed(function: Callable[[Job], Any], jobs: Iterable[Job],
              hear: Callable[[Any], None] = lambda value: None) -> Generator[tuple[Job, Any], None, None]:
    """Give every job with its result, in the order in which they are done, by as many workers as there are cores.

    Workers are no forks, since threads of PyTorch and numba would not survive that. Where this
    process ends, or the iterator is closed early (`contextlib.closing`), they end at once, and what
    they started with them.

    Parameters
    ----------
    function, jobs : a function of a module, or a partial of one, and what it is called with; both
        are pickled
    hear : called with what workers `report`

    Raises
    ------
    WorkerError
        When a worker died; what is not given then is not done.
    """
    jobs = list(jobs)
    if not jobs:
        return
    # A fork server would need a socket, whose path is bounded, in the temporary folder.
    context = multiprocessing.get_context("spawn")
    reports = context.SimpleQueue()
    workers = min(len(jobs), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    pool = ProcessPoolExecutor(workers, context, _begin, (reports,))
    waiting: set = set()
    try:
        with _no_ctrl_c():
            futures = {pool.submit(function, job): job for job in jobs}
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, POLL_S, FIRST_COMPLETED)
            while not reports.empty():
                hear(reports.get())
            for future in done:
                yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise WorkerError("a worker process died") from error
    finally:
        if waiting:
            for process in list(pool._processes.values()):  # Python 3.14 has kill_workers for it
                process.kill()
        pool.shutdown(cancel_futures=True)
        reports.close()


@contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """Hold Ctrl-C back here; processes that start meanwhile never get it: their parent ends them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def _begin(reports: Any) -> None:
    """Begin a worker, whose end is that of its parent."""
    global _reports
    _reports = reports
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
