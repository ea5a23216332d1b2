"""Storages by their URLs: each command does in a database what it does in files, or says that it cannot."""

from __future__ import annotations

import importlib
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys

import click
import pytest

import duraq as library
from duraq import Queue
from duraq.cli import COMMANDS
from duraq.cli.failing import Code
from duraq.cli.options import Settings
from duraq.journal.lease import _argv
from duraq.safe_text import without_password

# What the commands say of one life, over any storage: each of ANY is among them, all in this order.
SCRIPT = (
    "init",
    "stats",
    "create jobs",
    "ls",
    "put jobs {} --id one --header to=ann --key k",
    "put jobs {} --id one",
    "put UPPER {}",
    "put jobs {} --id other --key k",
    "put jobs 2 --id two --priority 3",
    "put jobs 3 --id soon --delay 1ms",
    "put jobs 4 --id later --delay 1h",
    "put jobs 5 --id gone --ttl 1ms",
    "put jobs [6] --id six",
    "put other 7 --id invoice-4711-abcd",
    "stats --json",
    "stats --by state --json",
    "top --once --json",
    "ls --json",
    "ls jobs",
    "ls jobs --json --sort -id",
    "ls jobs --state scheduled -o ids",
    "ls -w payload=2 -o ids",
    "ls nosuch",
    "peek jobs -n 9 -o ids",
    "show one two --json",
    "show one --raw",
    "show ..4711-abcd --json",
    "show nosuch",
    "get jobs -n 2 -o ids",
    "leases --json",
    "extend jobs/two/1 --lease 1h",
    "ack jobs/two/1",
    "ack jobs/two/1",
    "nack jobs/one/2 --error boom --retry-in 0s",
    "get jobs -n 3 -o ids",
    "release one -y",
    "nack jobs/soon/4 --error late --dead",
    "nack jobs/six/5 --error bad --dead --json",
    "get nosuch",
    "workers",
    "errors --json",
    "errors --raw-messages jobs",
    "errors --by type other",
    "dlq ls --json",
    "dlq ls -w err:Nack -o ids",
    "dlq show soon --json",
    "dlq errors --json",
    "dlq export {letters}",
    "stats --by sig",
    "check --no-write --json",
    "dlq rm soon -y --json",
    "dlq acts -o csv --fields verb,queue,count",
    "undo",
    "dlq retry soon --json",
    "move jobs --all --to other -y --json",
    "dlq retry --all -y",
    "get jobs -n 9 -o ids",
    "dlq purge jobs -y --expect 0",
    "dlq import {letters}",
    "dlq purge jobs -y --expect 1",
    "dlq ls",
    "pause jobs --reason why",
    "stats jobs --json",
    "get jobs",
    "resume jobs",
    "run jobs --once --json -- true",
    "run other --drain --max-attempts 1 --json -- false",
    "run nosuch --once -- true",
    "metrics jobs",
    "ls jobs -o ids",
    "dlq ls -o ids",
)
ANY = {
    *("init", "create", "put", "get", "ack", "nack", "extend", "release", "run", "pause", "resume"),
    *(
        "stats",
        "top",
        "ls",
        "peek",
        "show",
        "errors",
        "leases",
        "workers",
        "check",
        "metrics",
        "move",
        "undo",
    ),
    *(f"dlq {name}" for name in ("ls", "show", "errors", "retry", "rm", "purge", "acts", "export", "import")),
}
FILES = {
    "tail": "tail",
    "verify": "verify",
    "repair": "repair",
    "compact": "compact",
    "backup": "backup {elsewhere}",
    "restore": "restore {elsewhere}",
    "dash": "dash",
    "demo": "--root {url} demo",
}
# The last takes two storages by themselves: test_migrating.py.
NEITHER = {"config get", "config set", "config path", "completion", "help", "migrate"}


def commands():
    """The names of all commands that do something."""
    for name, (home, _) in COMMANDS.items():
        command = getattr(importlib.import_module(home if "." in home else f"duraq.cli.{home}"), name)
        if isinstance(command, click.Group):
            yield from (f"{name} {sub}" for sub in command.commands)
        else:
            yield name


def test_every_command_is_asked():
    """Each command takes any storage and is tried below, or only files and refuses; a new one must choose."""
    assert set(commands()) == ANY | FILES.keys() | NEITHER
    asked = {line if line in ANY else " ".join(line.split()[:2]) for line in SCRIPT}
    assert asked | {name.split()[0] for name in asked} >= ANY


# What differs from one run to the next, or is about files only.
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ][\d:]+(\.\d+)?(Z|\+00:00)?")
_FLOAT = re.compile(r"\d+\.(?!0\b)\d+(e[+-]\d+)?")
_LEFT_OUT = {"life", "token", "path", "details", "worker", "trend", "act", "message"}


_LEASE = re.compile(r"(jobs/\w+)/(\d+)")
_TOKEN = re.compile(r"""(jobs/\w+/|\blease |"token":)\d+""")


def scrubbed(value):
    if isinstance(value, dict):
        return {name: scrubbed(each) for name, each in value.items() if name not in _LEFT_OUT}
    if isinstance(value, list):
        return list(map(scrubbed, value))
    if isinstance(value, float):
        return 0.0
    return _TIME.sub("T", value) if isinstance(value, str) else value


def as_read(line, text, url):
    """What a program would take from it."""
    if "--json" in line and text.startswith("{"):
        return [scrubbed(json.loads(each)) for each in text.splitlines()]
    kept = (each for each in text.splitlines() if "_bytes{" not in each and "seconds_bucket" not in each)
    shown = [_TOKEN.sub(r"\1N", _FLOAT.sub("0.0", _TIME.sub("T", each))) for each in kept]
    shown = [each.removesuffix("; of what is over a database keeps nothing") for each in shown]
    for name in (without_password(url), url.removeprefix("file:")):
        shown = [each.replace(name, "URL") for each in shown]
    # An entry's records, which a database does not keep.
    return shown[: shown.index("  on disk")] if "  on disk" in shown else shown


def with_token(part, tokens):
    """A lease in a command, with the token that was printed for it."""
    found = _LEASE.fullmatch(part)
    return part if found is None else f"{found[1]}/{tokens.get(found[1], found[2])}"


def played(duraq, letters, script):
    """What every line of the script comes to."""
    said, tokens = {}, {}
    for number, line in enumerate(script):
        argv = [part.replace("{letters}", str(letters)) for part in line.split()]
        # A database has numbers of its own for leases.
        argv = [with_token(each, tokens) for each in argv]
        if "dlq export" in line:
            argv.remove(str(letters))
        result = duraq(*argv)
        if "dlq export" in line:
            letters.write_text(result.stdout)
        tokens |= dict(_LEASE.findall(result.stdout))
        said[number, line] = (
            result.exit_code,
            as_read(line, result.stdout, duraq.root),
            as_read(line, result.stderr, duraq.root),
        )
    return said


DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
# In files and in one database each time, all of it; in the others as a rule only what has to do with them.
SCRIPTS = {
    "sqlite": SCRIPT,
    "lmdb": SCRIPT if DEEP else SCRIPT[:41:2],
    "postgres": SCRIPT if DEEP else SCRIPT[:41:2],
}


@pytest.mark.parametrize("kind", SCRIPTS)
def test_the_same_as_in_files(kind, duraq, url_of, tmp_path):
    """Each command says the same, with the same exit code, over a database as over files."""
    expected, found = (
        played(type(duraq)(url_of(name)), tmp_path / f"{name}.jsonl", SCRIPTS[kind])
        for name in ("file", kind)
    )
    assert {code for code, _, _ in expected.values()} >= {Code.DONE, Code.CONFLICT, Code.NOT_FOUND}
    assert {step: (here, found[step]) for step, here in expected.items() if found[step] != here} == {}


# -- what is about files -----------------------------------------------------------------------------------

FAR = "postgresql://ann:s3cret@127.0.0.1:1/shop"  # nobody is there


@pytest.mark.parametrize("line", FILES.values(), ids=FILES)
def test_only_files(duraq, tmp_path, line):
    """What is about files says so, and what there is instead, before it looks, asks or makes anything."""
    for url in (f"sqlite:{tmp_path}/q.db", f"lmdb:{tmp_path}/env", FAR):
        duraq.root = url
        argv = line.replace("{elsewhere}", str(tmp_path / "copy")).replace("{url}", url).split()
        result = duraq(*argv)
        assert (result.exit_code, result.stdout) == (Code.USAGE, "")
        assert (
            f"is for storages in files, and this is {url.partition(':')[0].removesuffix('ql')}"
            in result.stderr
        )
        assert result.stderr.rstrip().endswith(")")
    assert list(tmp_path.iterdir()) == []


def test_where_a_record_is(duraq, tmp_path):
    """One option of a command is about files as well."""
    duraq.root = f"sqlite:{tmp_path}/q.db"
    duraq.ok("put", "jobs", "1", "--id", "one")
    result = duraq("show", "one", "--where-is")
    assert (result.exit_code, result.stdout) == (Code.USAGE, "")
    assert "show --where-is is for storages in files" in result.stderr


def test_memory(duraq):
    """Queues in memory are refused with the reason, as a usage error; what needs no storage goes on."""
    duraq.root = "memory:"
    for argv in (("put", "jobs", "1"), ("stats",), ("run", "jobs", "--", "true"), ("verify",)):
        result = duraq(*argv)
        assert (result.exit_code, result.stdout) == (Code.USAGE, "")
        assert "no longer than one command" in result.stderr
    duraq.ok("help", "filters")


# -- what is not there -------------------------------------------------------------------------------------

LOOKS = (
    "stats",
    "ls",
    "ls jobs",
    "peek jobs",
    "show x",
    "leases",
    "workers",
    "errors",
    "dlq ls",
    "dlq errors",
)
ACTS = (
    "get jobs",
    "ack jobs/x/1",
    "run jobs -- true",
    "pause jobs",
    "create jobs",
    "dlq acts",
    "undo",
    "metrics",
)


@pytest.mark.parametrize("kind", ["sqlite", "lmdb", "postgres"])
def test_only_put_makes_a_database(kind, duraq, url_of, tmp_path):
    """Every other command says that there is none, and who named it, and leaves nothing behind."""
    duraq.root = url_of(kind)
    before = set(tmp_path.iterdir())
    for line in (*LOOKS, *ACTS) if kind == "sqlite" else (*LOOKS[:2], *ACTS[:2]):
        result = duraq(*line.split())
        assert (result.exit_code, result.stdout) == (Code.NOT_FOUND, ""), line
        assert "named by $DURAQ_ROOT" in result.stderr
    assert set(tmp_path.iterdir()) == before
    assert "made a new storage" in duraq("put", "jobs", "1").stderr
    assert duraq("put", "jobs", "1").stderr == ""


def test_an_applications_database(duraq, tmp_path):
    """An application's database without queues is left alone by whoever only looks; put makes them in it."""
    path = tmp_path / "app.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE orders (id)")
    database.close()
    before = path.read_bytes()
    duraq.root = f"sqlite:{path}"
    assert duraq("stats").exit_code == duraq("pause", "jobs").exit_code == Code.NOT_FOUND
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (before, [path])
    duraq.ok("put", "jobs", "1", "--id", "one")
    assert duraq.ok("ls", "jobs", "-o", "ids") == "one\n"


@pytest.mark.parametrize(
    ("module", "extra", "url"), [("lmdb", "lmdb", "lmdb:{}"), ("psycopg", "postgres", FAR)]
)
@pytest.mark.parametrize("line", ["stats", "put jobs 1"])
def test_an_extra_that_is_missing(tmp_path, module, extra, url, line):
    """What must be installed for a kind of storage is said in one line."""
    code = f"import sys; sys.modules[{module!r}] = None; from duraq.cli import main; main()"
    argv = [sys.executable, "-c", code, "--root", url.format(tmp_path / "env"), *line.split()]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (Code.USAGE, "")
    (said,) = done.stderr.splitlines()
    assert f"pip install 'duraq[{extra}]'" in said


# -- who names it ------------------------------------------------------------------------------------------


def test_who_names_it(duraq, tmp_path, monkeypatch):
    """A URL may be given by the flag, by the environment and by the configuration; file: is a directory."""
    url = f"sqlite:{tmp_path}/q.db"
    monkeypatch.chdir(tmp_path)
    duraq.ok("--root", url, "put", "jobs", "1", "--id", "one")
    duraq.root = url
    assert duraq.ok("ls", "jobs", "-o", "ids") == "one\n"
    duraq.ok("config", "set", "root", url)
    duraq.root = ""
    assert duraq.ok("ls", "jobs", "-o", "ids") == "one\n"
    assert duraq.ok("--root", "sqlite:q.db", "ls", "jobs", "-o", "ids") == "one\n"
    assert Settings(root=f"file:{tmp_path}/a%20b").place() == ("file", f"{tmp_path}/a b")
    assert Settings(root="./a:b").place() == ("file", "./a:b")
    assert duraq("--root", "redis://h", "ls").exit_code == Code.USAGE


def test_what_programs_are_told(duraq, tmp_path, monkeypatch):
    """A program that works a queue finds the storage's URL in its environment, from wherever it runs."""
    monkeypatch.chdir(tmp_path)
    duraq.root = "sqlite:q.db"
    duraq.ok("put", "jobs", "1")
    script = f'cd / && "{sys.executable}" -m duraq put told "\\"$DURAQ_ROOT\\""'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    code, _, err = duraq.run(
        "--root", "sqlite:q.db", "run", "jobs", "--once", "--", "sh", "-c", script, env=environment
    )
    assert (code, err) == (0, b"1 completed\n")
    assert (
        json.loads(duraq.ok("show", *duraq.ok("ls", "told", "-o", "ids").split(), "--raw"))
        == f"sqlite:{tmp_path}/q.db"
    )


def test_completion(duraq, tmp_path, monkeypatch):
    """Tab offers the queues of a database file; it makes none, and asks no server."""
    monkeypatch.setenv("COMP_WORDS", "duraq ls ")
    monkeypatch.setenv("COMP_CWORD", "2")
    monkeypatch.setenv("_DURAQ_COMPLETE", "bash_complete")
    for url in (f"sqlite:{tmp_path}/q.db", FAR, "redis:x"):
        duraq.root = url
        assert duraq().stdout.strip() == ""
    assert list(tmp_path.iterdir()) == []
    with library.open(f"sqlite:{tmp_path}/q.db") as storage:
        Queue("jobs", storage).enqueue(1)
    duraq.root = f"sqlite:{tmp_path}/q.db"
    assert duraq().stdout == "plain,jobs\n"


# -- passwords ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "root",
    [
        FAR,
        f"{FAR}?connect_timeout=1",
        "postgresql://127.0.0.1:1/shop?user=ann&password=s3cret",
        "postgresql://ann:s3cret@nowhere.invalid/shop",
        "postgresql://ann:a@s3cret@127.0.0.1:1/shop",
        "postgresql://ann:a/s3cret@127.0.0.1:1/shop",
        "postgresql://ann:s3cret@127.0.0.1:x/shop",
        "postgresql://ann:s3cret@127.0.0.1:1/shop?nosuch=1",
        "postgres://ann:%zz-s3cret@127.0.0.1:1/shop",
        "postgresq://ann:s3cret@127.0.0.1/shop",
        "host=127.0.0.1 port=1 user=ann password=s3cret",
    ],
)
def test_passwords(duraq, root):
    """No password is printed, whatever is wrong: in no error, no traceback, no setting, no hint."""
    duraq.root = root
    for argv in (
        ("-v", "stats"),
        ("-v", "--json", "put", "jobs", "1"),
        ("-vv", "tail"),
        ("init",),
        ("check",),
    ):
        result = duraq(*argv)
        assert result.exit_code
        assert "s3cret" not in result.stdout + result.stderr, argv
        assert result.stderr


def test_a_password_that_is_settled(duraq, tmp_path):
    """A password in the configuration is shown by no command, and the file is its owner's alone."""
    result = duraq("config", "set", "root", FAR)
    said = [result.stderr, duraq.ok("config", "get", "root"), duraq.ok("config", "get", "--json")]
    assert all("ann:***@127.0.0.1" in text and "s3cret" not in text for text in said)
    path = tmp_path / "config" / "duraq" / "config.toml"
    assert FAR in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_password_among_arguments():
    """What a worker says of itself has the arguments of its process without a password that is in them."""
    cmdline = f"duraq\0--root={FAR}\0run\0mail\0".encode()
    assert _argv(cmdline) == ["duraq", "--root=postgresql://ann:***@127.0.0.1:1/shop", "run", "mail"]


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("nothing of it", "nothing of it"),
        ("see http://host/a@b and mail ann@host", "see http://host/a@b and mail ann@host"),
        ("postgresql://ann@host/db", "postgresql://ann@host/db"),
        ("to postgresql://ann:p:w@x@host:1/db, ok", "to postgresql://ann:***@host:1/db, ok"),
        ("x?password=pw&user=ann", "x?password=***&user=ann"),
    ],
)
def test_without_password(text, without):
    """Only a password goes, and all of it."""
    assert without_password(text) == without
