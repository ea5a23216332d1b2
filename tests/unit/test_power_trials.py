"""What the power cuts of queues are judged by; no power is cut here."""

import pytest

from benchmarks.power import report
from benchmarks.power.report import Outcome
from benchmarks.power.trial import Figures, number_of, text


def test_every_text_names_its_number():
    """What was enqueued as a number is known by it again."""
    assert [number_of(text(number)) for number in range(300)] == list(range(300))


@pytest.mark.parametrize(
    "found", [text(7)[:-1], text(7) + "7", text(7).replace("7", "8", 1), "\0" * 50, "", "x", None, 7]
)
def test_what_was_never_enqueued_has_no_number(found):
    """A text that is cut, longer, changed or something else is told from all that were enqueued."""
    assert number_of(found) is None


def outcome():
    found = Figures()
    found.add(Figures(acknowledged=1000, lost=7, altered=1))
    found.add(Figures(acknowledged=234, lost=234, unreadable=1, error="OSError: no"))
    return Outcome("xfs", 2, [("one: setting", "1.0", found)], [("another", "it is not here")])


def test_figures_are_added_up():
    """The table has the sums over all cuts, and what it cannot say stands below it."""
    assert report.as_text(outcome()).splitlines() == [
        "XFS, 2 cuts each",
        "queue         version  acknowledged  lost  altered  unreadable",
        "one: setting  1.0             1,234   241        1           1",
        "one: setting, where it was unreadable: OSError: no",
        "another is left out: it is not here",
    ]


def test_a_document_has_one_place_for_the_tables(tmp_path):
    """The tables take the place of those that were there, and nothing else of the page is touched."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nstale\n{report.END}\nafter\n")
    report.write_into(page, report.as_markdown([outcome()], "make it"))
    written = page.read_text()
    assert "| one: setting | 1.0 | 1,234 | 241 | 1 | 1 |" in written
    assert "stale" not in written
    assert (written[:7], written[-6:]) == ("before\n", "after\n")
    page.write_text("nothing")
    with pytest.raises(ValueError, match="0 places"):
        report.write_into(page, "tables")
