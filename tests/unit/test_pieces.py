"""Reading in pieces gives what reading at once would, wherever the pieces meet."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duraq import Queue
from duraq.journal import pieces, segment
from duraq.journal.pieces import LineTooLong
from duraq.testing import MemoryFileSystem

BEGINNING = b"{a"
# Of few letters, so that lines and their beginnings come often.
contents = st.text("{a\n", max_size=60).map(str.encode)


@pytest.fixture(params=[1, 2, 3, 7, 64])
def piece(request, monkeypatch):
    """Pieces of that many bytes."""
    monkeypatch.setattr(pieces, "PIECE", request.param)


def opened(content):
    fs = MemoryFileSystem()
    fd = fs.open_file(fs.open_root("/", create=True), "file", create=True)
    fs.pwrite(fd, content, 0)
    return fs, fd


together = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@together
@given(contents, st.data())
def test_lines(piece, content, data):
    """Whole lines come in order, each once, and what has no end is left out."""
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    found = list(pieces.lines(*opened(content), start, end))
    assert b"".join(found) == content[start:end][: content[start:end].rfind(b"\n") + 1]
    assert all(block.endswith(b"\n") for block in found)
    assert b"".join(pieces.pieces(*opened(content), start, end)) == content[start:end]


@together
@given(contents)
def test_beginnings_from_the_end(piece, content):
    """Every line that begins so is found, the last one first."""
    starts = [0, *(at + 1 for at, byte in enumerate(content) if byte == 10)]
    wanted = [at for at in starts if content[at:].startswith(BEGINNING)]
    assert list(pieces.starts_from_the_end(*opened(content), BEGINNING)) == wanted[::-1]


@pytest.mark.parametrize("length", [1, 4095, 4096, 4097, 70_000])
def test_the_last_line(length):
    """The last line is found, whatever its length."""
    last = b"x" * (length - 1) + b"\n"
    content = b"first\n" + last
    assert pieces.last_line(*opened(content), 0, len(content)) == last
    assert pieces.last_line(*opened(content), 6, len(content)) == last


def test_lines_that_are_too_long(monkeypatch):
    """A line longer than any record is refused, with or without an end; one that is as long is read."""
    monkeypatch.setattr(pieces, "PIECE", 16)
    monkeypatch.setattr(pieces, "LONGEST_LINE", 8192)
    longest = b"x" * 8191 + b"\n"
    for content in (longest + b"\n", b"y\n" + longest):
        assert b"".join(pieces.lines(*opened(content), 0, len(content))) == content
    for content in (b"y\nz\nx" + longest, b"y\nz\n" + b"x" * 8193):
        with pytest.raises(LineTooLong) as refused:
            list(pieces.lines(*opened(content), 0, len(content)))
        assert refused.value.offset == 4
    with pytest.raises(LineTooLong):
        pieces.last_line(*opened(b"x" * 20_000), 0, 20_000)
    with pytest.raises(LineTooLong):
        pieces.only_line(*opened(b"x" * 8193))
    assert pieces.only_line(*opened(longest)) == longest


def test_a_queue_read_in_the_smallest_pieces(open_tiny, monkeypatch):
    """Records are folded one after the other, whatever is read of other segments on the way."""
    monkeypatch.setattr(pieces, "PIECE", 100)
    monkeypatch.setattr(segment, "OPEN_FILES", 1)
    mine, theirs = Queue("jobs", open_tiny()), Queue("jobs", open_tiny())
    for number in range(60):
        mine.enqueue({"n": number, "x": "x" * 60}, priority=number % 20)
    # From a segment each: whoever reads these records reads the entries of other segments in between.
    taken = [theirs.dequeue().data["n"] for _ in range(4)]
    assert taken == [19, 39, 59, 18]
    assert mine.counts().leased == 4
    assert {entry.data["n"] for entry in mine.entries()} == set(range(60))
