"""What is printed: one line per error, nothing of a user's lost or obeyed, numbers as people read them."""

import errno

import pytest

from cbnn.sim.command.screen import (
    MAX_SENTENCE,
    cell,
    facts_tables,
    print_result,
    rows_table,
    sentence_of,
    tell,
    visible,
)


@pytest.mark.parametrize(("text", "shown"), [
    ("a\nb", "a\\nb"), ("a\x1b[31mb", "a\\x1b[31mb"), ("a\u2028b", "a\\u2028b"), ("\udcff.npz", "\\udcff.npz"),
    ("größe [train] ü", "größe [train] ü"), ("a\u202eb", "a\\u202eb"), ("\\n", "\\n")])
def test_what_cannot_be_printed_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert sentence_of(ValueError(text)) == shown


def test_a_long_error_keeps_its_beginning_and_its_rule() -> None:
    text = sentence_of(ValueError(f"number {'9' * 10_000}; it must be 1 to 5"))
    assert len(text) <= MAX_SENTENCE + 3
    assert text.startswith("number 999")
    assert text.endswith("9; it must be 1 to 5")


@pytest.mark.parametrize(("error", "sentence"), [
    (OSError(errno.ENOSPC, "No space left on device", "out/x"), "out/x: No space left on device"),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    (OSError("what a library says"), "what a library says"),
    (ModuleNotFoundError("No module named 'distributed'", name="distributed"),
     "the Python package distributed is not installed; pip install 'cbnn[sweep]'"),
    (ModuleNotFoundError("No module named 'xyz'", name="xyz"), "the Python package xyz is not installed"),
    (ModuleNotFoundError("training needs PyTorch"), "training needs PyTorch"),
])
def test_no_words_of_python(error: Exception, sentence: str) -> None:
    assert sentence_of(error) == sentence


@pytest.mark.parametrize(("name", "value", "text"), [
    ("images", 12345, "12,345"), ("accuracy", 0.951852, "95.19 %"), ("accuracy_confidence_95", [0.5, 1.0],
                                                                      "50.00 %, 100.00 %"),
    ("wrong_images", [], "none"), ("smallest", True, "yes"), ("interval", None, "-"), ("model", "[train]", "\\[train]"),
    ("run_seconds", 0.5, "0.5")])
def test_cells(name: str, value: object, text: str) -> None:
    assert cell(name, value) == text


def test_markup_of_users_is_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    tell("report: [train]/x")
    print_result({"model": "[red]net.npz"}, False)
    print_result({}, False, rows_table([{"a": "[b]"}], {"a": "[c]"}), "[d]")
    out, err = capsys.readouterr()
    assert err == "report: [train]/x\n"
    for text in ("[red]net.npz", "[b]", "[c]", "[d]"):
        assert text in out


def test_dictionaries_stand_side_by_side() -> None:
    first, second = facts_tables({"result": "PASS", "predicted": {"interval": 5}, "measured": {"interval": 6}})
    assert first.row_count == 1
    assert [column.header for column in second.columns] == ["", "predicted", "measured"]
    assert [list(column.cells) for column in second.columns] == [["interval"], ["5"], ["6"]]
