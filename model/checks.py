"""Checks of what describes a network: kinds and ranges of its numbers, refused in one sentence each."""


def check_kind(name: str, value: object, kind: type) -> None:
    """Raise ValueError unless a value is of a kind; of the kind int are Python's own integers only, no bool."""
    if type(value) is not int if kind is int else not isinstance(value, kind):
        raise ValueError(f"{name} is of type {type(value).__name__}; it must be {kind.__name__}")


def check_tuple(name: str, values: object, kind: type) -> None:
    """Raise ValueError unless values are a tuple, and each is of a kind."""
    check_kind(name, values, tuple)
    assert isinstance(values, tuple)
    for value in values:
        check_kind(f"one of {name}", value, kind)


def check_range(name: str, value: object, low: int, high: int) -> None:
    """Raise ValueError unless a value is an integer in its range."""
    check_kind(name, value, int)
    assert isinstance(value, int)
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must be {low} to {high}")
