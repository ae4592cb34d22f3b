"""The committed table of what runs has the rows that the SDK and the tests ask for."""

import compatibility
import pytest


def test_every_row_is_covered_or_has_a_reason():
    named = {*compatibility.covered(), *compatibility.NOT_SUPPORTED, *compatibility.operations()}
    assert not [row for row in compatibility.listed() if row not in named]


def test_what_is_covered_is_not_called_unsupported():
    assert not set(compatibility.covered()) & set(compatibility.NOT_SUPPORTED)


@pytest.mark.skipif("config.getoption('--write-compatibility')", reason="the table is being written")
def test_the_committed_table_has_these_rows():
    expected = compatibility.table({})
    committed = compatibility.TABLE.read_text()

    def names(text):
        return [tuple(line.split(" | ")[::2]) for line in text.splitlines() if line.startswith("| ")]

    assert names(committed) == names(expected), "run `make compatibility`, and commit what it writes"


@pytest.mark.skipif("config.getoption('--write-compatibility')", reason="the table is being written")
def test_every_committed_row_works_or_says_why_not():
    for (title, row), (state, _) in compatibility.read_table().items():
        assert state == compatibility.WORKS or state.startswith("not supported: "), f"{title}: {row}: {state}"
