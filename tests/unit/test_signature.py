"""Errors that differ only in what differs each time have one signature."""

import pytest

from duraq import NoRetry, Queue, failure
from duraq.signature import normalised, signature


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("HTTPError 503 https://psp.example/charge/12?x=1", "HTTPError 503 <url>"),
        ("HTTP/1.1 404 for /a/b.html", "HTTP/1.1 404 for <path>"),
        ("timed out after 30.5s", "timed out after <n>s"),
        ("[Errno 28] No space left on device: '/srv/x/y.jpg'", "[Errno 28] No space left on device: <text>"),
        ("Expecting value: line 3 column 17 (char 99)", "Expecting value: line <n> column <n> (char <n>)"),
        ("user 42 <ann@example.org> 0x7f00ab", "user <n> <<address>> <n>"),
        ("id 1b4e28ba-2fa1-11d2-883f-0016d3cca427 at 2026-11-29T10:00:00Z", "id <id> at <time>"),
        ("commit 5f1c9a1e00", "commit <id>"),
        ("can't open \"x\", didn't work", "can't open <text>, didn't work"),
        ("worker 4711-12345678 died", "worker <worker> died"),
        ("deadbeef and facade", "deadbeef and facade"),
        (" a\n\tb ", "a b"),
        ("", ""),
    ],
)
def test_what_differs_is_left_out(message, wanted):
    """Numbers, ids, times, paths and quoted texts are replaced; what says which error it is stays."""
    assert normalised(message) == wanted


def test_the_kind_and_the_function_count():
    """Errors of another kind, or raised in another function, have another signature."""
    known = signature("TimeoutError", "after 3 s", "send")
    assert signature("TimeoutError", "after 40 s", "send") == known
    others = {
        signature("TimeoutError", "after 3 s", "receive"),
        signature("OSError", "after 3 s", "send"),
        signature("TimeoutError", "before 3 s", "send"),
    }
    assert len(others | {known}) == 4


def test_it_never_changes():
    """Signatures are written down, so they must be the same in every version."""
    assert signature("KeyError", "'name'", "send") == "d85b0651"


def test_the_frame_is_the_application_s(storage):
    """The frame that is kept is the last one outside libraries, and its function is in the signature."""
    queue = Queue("jobs", storage, retry_policy=NoRetry())

    def handler(entry):
        int(entry.data)

    def other(entry):
        int(entry.data)

    for each in (handler, handler, other):
        queue.enqueue("no number 12")
        with pytest.raises(ValueError, match="invalid literal"):
            queue.process_next(each)
    errors = [entry.errors[-1].error for entry in queue.entries()]
    assert errors[0].frame.startswith(f"{__file__}:")
    assert errors[0].frame.endswith(" in handler")
    assert errors[0].signature == errors[1].signature != errors[2].signature


def test_a_traceback_is_cut_by_bytes():
    """A traceback takes 16 KB at most, and a little to say what is missing, whatever its characters."""
    found = failure.as_text(ValueError("€" * 100_000))
    assert len(found.traceback.encode()) < 16 * 1024 + 100
    assert len(found.message.encode()) < 4096 + 100
    assert "bytes left out" in found.traceback
    assert found.message.strip("€").startswith("\n... ")


def test_a_hostile_message():
    """A message of any length and form gives a short normalised one."""
    for piece in ("a/" * 200, "1" * 400, "'" * 400, "http://" * 60, "a.b@" * 100, "0x" * 200, "f1" * 200):
        assert len(normalised(piece * 100)) <= 1200
