"""errors, dlq errors."""

from __future__ import annotations

import json

import pytest

from duraq import FileStorage, Queue
from duraq.cli.failing import Code
from duraq.journal.log import Sizes
from duraq.sparkline import sparkline


@pytest.fixture
def failed(queue):
    """A queue in which three entries have failed, and one has died of it."""
    queue.enqueue_many([1, 2, 3], ids=["one", "two", "three"])
    for entry in queue.dequeue(limit=3):
        queue.mark_failed(entry, ValueError(f"no row {entry.data}"))
    queue.mark_completed(queue.dequeue())
    queue.mark_failed(queue.dequeue(), ValueError("no row 2"))
    return queue


def test_errors(duraq, failed):
    """Failures are shown by what they have in common, with what has become of them."""
    (row,) = duraq.json("errors")["rows"]
    assert (row["count"], row["ok"], row["waiting"], row["dead"], row["other"]) == (4, 1, 1, 2, 0)
    assert row["error"] == "ValueError: no row <n>"
    assert row["queues"] == {"jobs": 4}
    assert sum(row["trend"]) == 4
    assert not row["new"]
    result = duraq("errors", "-o", "table")
    assert "\u2588" in result.stdout
    assert result.stdout.startswith("ATTEMPTS ")
    told = "1 of entries done since, 1 of entries that wait, 2 of dead letters"
    assert result.stderr == f"4 failed attempts in the last 1h: {told}\n"


def test_raw_messages(duraq, failed):
    """With --raw-messages the newest are shown as they are."""
    rows = duraq.json("errors", "--raw-messages")["rows"]
    assert {row["error"] for row in rows} <= {f"ValueError: no row {number}" for number in (1, 2, 3)}
    assert rows[0]["id"] == "two"


@pytest.mark.parametrize("since", ["1h", "-90m", "today", "2020-01-01"])
def test_since(duraq, failed, since):
    """How far back can be said as a length of time or as a time."""
    if since != "today":  # it might be just after midnight
        assert duraq.json("errors", "--since", since)["rows"][0]["count"] == 4
    assert duraq("errors", f"--since={since}").exit_code == Code.DONE


@pytest.mark.parametrize("since", ["tomorrow", "soon", "99999999h"])
def test_wrong_since(duraq, failed, since):
    """A time that is not in the past, or too long ago, is refused."""
    assert duraq("errors", "--since", since).exit_code == Code.USAGE


def test_by(duraq, failed):
    """They are put together by type or queue if that is asked for."""
    assert duraq.ok("errors", "--by", "type", "-o", "ids") == "ValueError\n"
    assert duraq.ok("errors", "--by", "queue", "-o", "ids") == "jobs\n"


def test_queues(duraq, failed):
    """Only the queues that are named are looked at, and one that is not there is not found."""
    assert duraq.json("errors", "jobs")["rows"][0]["count"] == 4
    assert duraq("errors", "nosuch").exit_code == Code.NOT_FOUND
    assert duraq("dlq", "errors", "nosuch").exit_code == Code.NOT_FOUND


def test_a_damaged_queue(duraq, root):
    """If a queue cannot be read the others are shown, and the exit code says so."""
    with FileStorage(root, durability="process", sizes=Sizes(journal=1 << 14, segment=2000)) as storage:
        queue = Queue("jobs", storage)
        queue.enqueue(1)
        queue.mark_failed(queue.dequeue(), "no")
        # So many that the journal does not know the first any more, and could not mend it.
        for number in range(300):
            Queue("other", storage).enqueue(number)
    segment = min((root / "other" / "segments").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b'"data":0', b'"data":1'))
    for file in segment.parent.glob("*.checkpoint"):
        file.unlink()
    result = duraq("errors", "--json")
    assert result.exit_code == Code.DAMAGED
    assert json.loads(result.stdout)["rows"][0]["count"] == 1
    alone = duraq("errors", "other")
    assert (alone.exit_code, alone.stderr.count("\n"), "0 failed" in alone.stderr) == (Code.DAMAGED, 1, False)


def test_dlq_errors(duraq, failed):
    """Of the dead letters it is shown what they died of."""
    (row,) = duraq.json("dlq", "errors")["rows"]
    assert (row["count"], row["error"], row["queues"]) == (1, "ValueError: no row <n>", {"jobs": 1})
    assert [each["id"] for each in row["samples"]] == ["two"]
    assert "two" in duraq.ok("dlq", "errors", "--raw-messages", "-o", "tsv")
    # What --where sig: wants.
    assert row["signature"] in duraq.ok("dlq", "errors", "-o", "tsv")


def test_bars():
    """Bars begin at zero: half of the largest number is half as high, and a little is not nothing."""
    assert sparkline((0, 4, 8, 1)) == "\u2581\u2585\u2588\u2582"
    assert sparkline((0, 0)) == "\u2581\u2581"
    assert sparkline((1, 1000)) == "\u2582\u2588"
    assert sparkline((0, 1), ascii_only=True) == "_#"


# -- entries that came from elsewhere ---------------------------------------------------------------------


def counts(duraq):
    """The failed attempts that are known, and how many of them are of dead letters, OK or waiting."""
    rows = duraq.json("errors")["rows"]
    return {name: sum(row[name] for row in rows) for name in ("count", "dead", "ok", "waiting")}


def test_what_failed_before_it_was_migrated(duraq, queue, tmp_path):
    """A storage in files knows of what its entries have been through in the storage that they came from."""
    queue.enqueue("dead")
    for _ in range(2):
        queue.mark_failed(queue.dequeue(), "no")
    queue.enqueue("waits")
    queue.mark_failed(queue.dequeue(), "no")
    before = counts(duraq)
    queue.storage.close()
    target = str(tmp_path / "target")
    duraq.ok("migrate", str(duraq.root), target)
    duraq.root = target
    assert counts(duraq) == before == {"count": 3, "dead": 2, "ok": 0, "waiting": 1}


def test_what_failed_before_it_was_imported(duraq, queue, tmp_path):
    """An imported dead letter brings its failures along; where they are on record they count once."""
    queue.enqueue("dead")
    for _ in range(2):
        queue.mark_failed(queue.dequeue(), "no")
    exported = duraq.ok("dlq", "export")
    duraq.ok("dlq", "rm", "--where", "queue:jobs", "--yes")
    duraq.ok("undo", "--yes")
    once = {"count": 2, "dead": 2, "ok": 0, "waiting": 0}
    assert counts(duraq) == once
    duraq.ok("dlq", "retry", "--where", "queue:jobs", "--yes")
    queue.mark_completed(queue.dequeue())
    duraq.ok("dlq", "import", "-", stdin=exported)
    assert counts(duraq) == {"count": 2, "dead": 0, "ok": 2, "waiting": 0}
    duraq.root = tmp_path / "other"
    duraq.ok("dlq", "import", "-", stdin=exported)
    assert counts(duraq) == once
    duraq.ok("dlq", "retry", "--where", "queue:jobs", "--yes")
    assert counts(duraq) == {"count": 2, "dead": 0, "ok": 0, "waiting": 2}
