"""A URL leads to the storage that it names, and a wrong one to an error that says what there is."""

import sys

import pytest

import duraq
from duraq import FileStorage, InvalidOption, LMDBStorage, MemoryStorage, Queue, SQLiteStorage


@pytest.mark.parametrize(
    ("url", "kind", "made"),
    [
        ("file:{}/storage", FileStorage, "storage"),
        ("{}/storage", FileStorage, "storage"),
        ("file://{}/a%20storage", FileStorage, "a storage"),
        ("sqlite:{}/queues.db", SQLiteStorage, "queues.db"),
        ("sqlite://{}/queues.db", SQLiteStorage, "queues.db"),
        ("lmdb:{}/env", LMDBStorage, "env"),
        ("memory:", MemoryStorage, None),
    ],
)
def test_what_it_names(tmp_path, url, kind, made):
    """Each kind of URL opens a storage of its kind, at that place, and it works."""
    with duraq.open(url.format(tmp_path)) as storage:
        assert type(storage) is kind
        Queue("jobs", storage).enqueue(1)
        assert storage.counts("jobs").ready == 1
    assert {path.name for path in tmp_path.iterdir()} - {f"{made}-duraq"} == ({made} if made else set())


@pytest.mark.parametrize(
    "string",
    [
        "host=db user=app password=s3cret",
        " dbname = shop",
        "sslmode=require host=h:1,k:2",
        "password='a/b s3cret'",
    ],
)
def test_a_connection_string(tmp_path, monkeypatch, string):
    """What only PostgresStorage takes becomes no directory, and its password is not told."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidOption, match="PostgresStorage takes it") as refused:
        duraq.open(string)
    assert "s3cret" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []
    duraq.open("file:host=db").close()
    duraq.open("a=b").close()
    assert {path.name for path in tmp_path.iterdir()} == {"host=db", "a=b"}


def test_where_one_is(tmp_path, monkeypatch):
    """A path alone, and one that is relative, are from where the program runs."""
    monkeypatch.chdir(tmp_path)
    for url in ("storage", "./b:c/storage", "file:other", "sqlite:q.db"):
        if url.startswith("./"):
            (tmp_path / "b:c").mkdir()
        duraq.open(url).close()
    assert {"storage", "b:c", "other", "q.db"} <= {path.name for path in tmp_path.iterdir()}


def test_what_it_needs_is_missing(monkeypatch):
    """Whoever lacks what a kind needs is told the extra that brings it."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "duraq.storage.postgres", raising=False)
    with pytest.raises(InvalidOption, match=r"duraq\[postgres\]"):
        duraq.open("postgresql://localhost/shop")


def test_its_options(tmp_path):
    """Options go to the class."""
    with duraq.open(f"sqlite:{tmp_path}/q.db", durability="process") as storage:
        assert storage.durability == "process"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://localhost", "no storage's URL"),
        ("", "no path"),
        ("sqlite:", "no path"),
        ("sqlite:a.db?mode=ro", "nothing else"),
        ("file://elsewhere/storage", "nothing else"),
        ("memory:a", "no path"),
        ("\x1b[31m:", "no storage's URL"),
    ],
)
def test_what_it_is_not(url, says):
    """Anything else is refused, and what it is not is said."""
    with pytest.raises(InvalidOption, match=says) as refused:
        duraq.open(url)
    assert str(refused.value).isprintable()
