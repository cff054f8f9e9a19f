"""For all tests."""

import gc
import signal
from collections.abc import Callable, Iterable, Iterator

import pytest

for _number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
    # Under nohup, and in the background of a script, signals are ignored, by all that tests start too.
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

collect_ignore_glob = ["*_bench.py"]  # run inside a simulator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no core waits for it at the end."""
    def seconds(item: pytest.Item) -> float:
        slow = item.get_closest_marker("slow")
        return slow.args[0] if slow else 0

    items.sort(key=seconds, reverse=True)


@pytest.fixture(autouse=True)
def leaks_are_found_where_they_are_made() -> Iterator[None]:
    """Collect garbage before each test ends: a file left open fails the test that opened it, not some later one."""
    yield
    gc.collect()
    gc.freeze()  # what is left, modules above all, is not looked through after every further test


@pytest.fixture
def points_are_trained_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in this process: a worker imports PyTorch for five seconds, then trains one of these for a tenth of one."""
    def completed(function: Callable, jobs: Iterable, hear: Callable) -> Iterator:
        return ((job, function(job)) for job in jobs)

    monkeypatch.setattr("cbnn.model.learn.points.completed", completed)
