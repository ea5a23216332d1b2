"""docs/SPECIFICATION.md names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [line for line in (ROOT / "docs" / "SPECIFICATION.md").read_text().splitlines() if line[:1] == "|"][2:]
NAMED = sorted({name for row in ROWS for name in re.findall(r"`([\w/]+\.py::\w+)`", row)})


@pytest.mark.parametrize("name", NAMED)
def test_a_named_test_exists(name):
    """What the table says shows something is a test."""
    file, _, function = name.partition("::")
    path = ROOT / file if "/" in file else Path(__file__).parent / file
    assert re.search(rf"^def {function}\(", path.read_text(), re.MULTILINE), name


def test_every_test_is_named():
    """Every counterpart of the specification's code stands in the table."""
    written = {
        f"{path.name}::{name}"
        for path in Path(__file__).parent.glob("test_*.py")
        if path.name != "test_the_table.py"
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert written <= set(NAMED)


def test_no_row_is_empty():
    """Every heading has a test, or words that say why it needs none."""
    for row in ROWS:
        heading, here, shown = (cell.strip() for cell in row.strip("|").split("|"))
        assert heading
        assert here or shown
