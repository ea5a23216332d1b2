"""Lists of rows, apart from any screen: what stays where it is when rows come and go."""

from duraq_dashboard.rows import Column, Listed, Picked, follow, laid_out
from hypothesis import given
from hypothesis import strategies as st

KEYS = st.lists(st.integers(0, 60), unique=True, max_size=40)


def listed(keys):
    return Listed((key, (str(key),)) for key in keys)


@given(KEYS, KEYS, st.integers(0, 39))
def test_row_that_is_still_there_is_followed(before, after, number):
    """The row under the cursor stays under it for as long as it is listed, wherever it goes."""
    number = min(number, max(0, len(before) - 1))
    found = follow(listed(before), number, listed(after))
    if before and before[number] in after:
        assert after[found] == before[number]
    elif after:
        assert 0 <= found < len(after)
    else:
        assert found == 0


@given(KEYS.filter(bool), st.integers(0, 39), st.sets(st.integers(0, 60)))
def test_cursor_goes_to_a_neighbour(keys, number, removed):
    """When its row is removed the cursor goes to the nearest row that is left."""
    number = min(number, len(keys) - 1)
    after = [key for key in keys if key not in removed]
    found = follow(listed(keys), number, listed(after))
    if after:
        left = [keys.index(key) for key in after]
        assert abs(keys.index(after[found]) - number) == min(abs(each - number) for each in left)


@given(KEYS, KEYS, st.sets(st.integers(0, 60)))
def test_picks_follow_their_rows(before, after, chosen):
    """A row that was picked is picked for as long as it is listed, and no other one ever is."""
    picked = Picked()
    picked.replace(chosen & set(before))
    picked.stay(listed(after), 0)
    assert picked.of(listed(after)) == chosen & set(before) & set(after)


@given(KEYS.filter(bool), st.integers(0, 39), st.integers(0, 39), KEYS)
def test_range_is_between_its_ends(keys, start, end, after):
    """A range holds the rows between where it began and the cursor, also after rows came and went."""
    start, end = min(start, len(keys) - 1), min(end, len(keys) - 1)
    rows, picked = listed(keys), Picked()
    picked.open(keys[start], start)
    picked.reach(rows, end)
    later = listed(after)
    cursor = follow(rows, end, later)
    picked.stay(later, cursor)
    still_open = keys[start] in after
    assert picked.is_open == still_open
    shown = {key for number, key in enumerate(after) if picked.has(key, number)}
    assert picked.of(later) == shown
    picked.close(later)
    assert picked.of(later) == shown
    if still_open:
        first, last = sorted((after.index(keys[start]), cursor))
        assert shown == set(after[first : last + 1])
    else:
        assert not shown


def test_columns_that_fit():
    """Columns are left out where a list is too narrow for them, and one takes the room that is left."""
    columns = (Column("A", 5), Column("B"), Column("C", 10, from_width=60))
    assert laid_out(columns, 80) == [(0, 5), (1, 80 - 5 - 10 - 2), (2, 10)]
    assert laid_out(columns, 40) == [(0, 5), (1, 34)]
    assert laid_out(columns, 3) == [(0, 5), (1, 1)]
