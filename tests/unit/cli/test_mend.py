"""verify, repair, backup and restore on the command line."""

from __future__ import annotations

import json

import pytest

from duraq import FileStorage, Queue, Sizes
from duraq.cli.failing import Code


@pytest.fixture
def filled(root):
    """A storage with three hundred entries, so that the journal has forgotten the first of them."""
    with FileStorage(root, sizes=Sizes(journal=16 << 10, segment=4 << 10)) as storage:
        for number in range(300):
            Queue("jobs", storage).enqueue(f"payload {number}", id=f"n{number}")
    return root


@pytest.fixture
def damaged(filled):
    """The same, with another byte in the payload of the third entry."""
    first = min((filled / "jobs" / "segments").glob("*.jsonl"))
    first.write_bytes(first.read_bytes().replace(b"payload 2", b"paylaod 2", 1))
    return filled


def tree(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_sound_storage(duraq, filled):
    """Of a sound storage verify says how much it has read, and changes nothing; repair has nothing to do."""
    before = tree(filled)
    for command in (("verify",), ("verify", "jobs"), ("repair", "--yes"), ("repair", "--dry-run")):
        done = duraq(*command)
        assert done.exit_code == Code.DONE
        assert "1 queue, 3" in done.stderr
        assert "all sound" in done.stderr
    assert tree(filled) == before


def test_damage_is_named(duraq, damaged):
    """verify names file, line, byte and entry, says that it is lost, and ends with 7; nothing is changed."""
    before = tree(damaged)
    done = duraq("--json", "verify")
    assert done.exit_code == Code.DAMAGED
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["queue"], row["line"], row["records"], row["ids"]) == ("jobs", 3, 1, ["n2"])
    assert row["path"] == "jobs/segments/00000000000000000001.jsonl"
    assert row["damage"] is True
    said = duraq("verify").stderr
    assert "queue jobs: lost, with nothing left of them: n2" in said
    assert "duraq repair --dry-run" in said
    assert tree(damaged) == before


def test_what_the_journal_makes_good(duraq, root):
    """Where a segment differs from the journal verify says it, and that the next to open it mends that."""
    with FileStorage(root) as storage:
        Queue("jobs", storage).enqueue_many(["one", "two"])
    with (root / "jobs" / "segments" / "00000000000000000001.jsonl").open("r+b") as file:
        file.seek(file.read().index(b'"two"') + 1)
        file.write(b"2")
    done = duraq("--json", "verify")
    assert done.exit_code == Code.DONE
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["queue"], row["line"], row["damage"]) == ("jobs", 2, False)
    assert "differs there from the journal" in row["what"]
    duraq.ok("put", "jobs", "3")
    assert duraq.json("verify")["rows"] == []


def test_a_dry_run_says_what_repair_does(duraq, damaged):
    """repair --dry-run says each step and changes nothing; repair does the same, and says so."""
    before = tree(damaged)
    planned = duraq("repair", "--dry-run").stderr
    assert tree(damaged) == before
    done = duraq("repair", "--yes")
    assert done.exit_code == Code.DONE
    assert "duraq repair --dry-run" not in planned + done.stderr
    assert "would do: jobs/segments/00000000000000000001.jsonl: written anew" in planned
    assert "done: jobs/segments/00000000000000000001.jsonl: written anew" in done.stderr
    assert duraq("verify").exit_code == Code.DONE
    assert len(duraq.json("ls", "jobs", "--limit", "1000")["rows"]) == 299
    kept = list((damaged / "jobs" / "quarantine").glob("00000000000000000001.jsonl.*"))
    assert before[damaged / "jobs" / "segments" / "00000000000000000001.jsonl"] in {
        path.read_bytes() for path in kept
    }


def test_repair_asks(duraq, damaged):
    """Without --yes, and without anybody to ask, repair changes nothing; at a terminal it asks, and obeys."""
    before = tree(damaged)
    assert duraq("repair").exit_code == Code.USAGE
    status, screen = duraq.at_terminal("repair", answer=b"n\n")
    assert status == Code.USAGE
    assert "Repair it? [y/N]" in screen
    assert "jobs/segments/00000000000000000001.jsonl, line 3, byte " in screen
    assert tree(damaged) == before
    assert duraq.at_terminal("repair", answer=b"y\n")[0] == Code.DONE
    assert duraq("verify").exit_code == Code.DONE


def test_repair_disturbs_nobody(duraq, damaged):
    """While somebody has the storage open, repair ends with 9 and says how to find out who."""
    with FileStorage(damaged):
        done = duraq("repair", "--yes")
    assert done.exit_code == Code.BUSY
    assert "fuser" in done.stderr


def test_only_one_queue(duraq, damaged):
    """Named queues only are read and repaired."""
    with FileStorage(damaged) as storage:
        Queue("other", storage).enqueue(1)
    assert duraq("verify", "other").exit_code == Code.DONE
    assert duraq("repair", "other", "--yes").exit_code == Code.DONE
    assert duraq("verify").exit_code == Code.DAMAGED
    assert duraq("verify", "nothing").exit_code == Code.NOT_FOUND


def test_backup_and_restore(duraq, filled, tmp_path):
    """A backup can be brought back to where the storage is to be; neither overwrites anything."""
    made = duraq.json("backup", str(tmp_path / "copy"))
    assert (made["names"], made["records"]) == (["jobs"], made["records"])
    before = tree(tmp_path / "copy")
    assert duraq("backup", str(tmp_path / "copy")).exit_code == Code.CONFLICT
    assert duraq("restore", str(tmp_path / "copy")).exit_code == Code.CONFLICT
    assert tree(tmp_path / "copy") == before
    again = duraq.json("-C", str(tmp_path / "again"), "restore", str(tmp_path / "copy"))
    assert again["records"] == made["records"]
    with FileStorage(tmp_path / "again") as storage:
        assert storage.counts("jobs").ready == 300


def test_damage_is_not_backed_up(duraq, damaged, tmp_path):
    """A damaged storage is not backed up: it ends with 7, and what can be done is said."""
    done = duraq("backup", str(tmp_path / "copy"))
    assert done.exit_code == Code.DAMAGED
    assert "duraq repair" in done.stderr
    assert not (tmp_path / "copy" / "duraq.json").exists()
