"""For all tests."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def leaks_are_found_where_they_are_made() -> Iterator[None]:
    """Collect garbage before each test ends: a file left open fails the test that opened it, not some later one."""
    yield
    gc.collect()
    gc.freeze()  # what is left, modules above all, is not looked through after every further test
