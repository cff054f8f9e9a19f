"""How slices are written."""

import pytest

from cbnn.sim.options import kept_slices


@pytest.mark.parametrize(("text", "kept"), [
    ("3", (3,)), ("4,3,2", (4, 3, 2)), ("4..2", (4, 3, 2)), ("7, 5", (7, 5)), ("7..5,3,1..0", (7, 6, 5, 3, 1, 0)),
    ("4..4", (4,)),
])
def test_slices_are_read_by_number(text: str, kept: tuple[int, ...]) -> None:
    assert kept_slices(text) == kept


@pytest.mark.parametrize("text", ["", "four", "2..4", "2,3", "3,3", "4..2,3", "4...2", "-1", "4,", "99999..0", "³"])
def test_other_words_are_one_sentence(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        kept_slices(text)
    assert str(caught.value) == (f"slices {text!r} are not written like 3, 4,3,2 or 4..2: "
                                 "numbers of slices, the highest first")
