"""The order of things by how many there are of each."""

from collections import Counter
from itertools import permutations

from duraq.most_first import most_first


def test_equal_ones_by_name():
    """The most comes first, and of equal ones the order never depends on which was counted first."""
    for words in permutations(["a", "b", "b", "c", "d", "d"]):
        assert most_first(Counter(words)) == [("b", 2), ("d", 2), ("a", 1), ("c", 1)]
