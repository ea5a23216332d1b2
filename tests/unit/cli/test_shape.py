"""The command line as a whole: what it is made of, its options, its errors, its exit codes."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys

import click
import pytest

from duraq import errors
from duraq.cli import COMMANDS, cli
from duraq.cli.failing import Code, CommandError, code_of
from duraq.cli.options import Settings

# What a storage in a directory has no use for.
DATABASES = ("sqlite3", "lmdb", "psycopg")


def imported_by(*arguments):
    """Which modules a call of the command line has imported by its end."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sys.modules, sep='\\n', file=sys.stderr))\n"
        "from duraq.cli import main\n"
        f"sys.argv[1:] = {list(arguments)!r}\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stderr.split()}, set(done.stderr.split())


@pytest.mark.usefixtures("uncounted")
def test_help_is_quick():
    """Help imports neither a command nor anything of the engine."""
    packages, modules = imported_by("--help")
    assert packages.isdisjoint(
        {
            "textual",
            "rich",
            "watchfiles",
            "msgspec",
            "orjson",
            "durationpy",
            "anyio",
            "uuid_utils",
            *DATABASES,
        }
    )
    assert not {name for name in modules if name.startswith("duraq.") and "cli" not in name} - {
        "duraq.actions",
        "duraq.errors",
    }
    assert modules.isdisjoint({f"duraq.cli.{home}" for home, _ in COMMANDS.values()})


@pytest.mark.usefixtures("uncounted")
def test_put_is_quick(root):
    """Adding an entry imports nothing that only workers, readers or typed queues need."""
    packages, modules = imported_by("-C", str(root), "put", "jobs", "1")
    assert packages.isdisjoint(
        {"textual", "rich", "watchfiles", "msgspec", "durationpy", "anyio", "multiprocessing", *DATABASES}
    )
    assert modules.isdisjoint(
        {"duraq.inspector", "duraq.worker", "duraq.storage.memory", "duraq.dead_letters", "duraq.config"}
        | {"duraq.storage.table", "duraq.storage.registry"}
    )


@pytest.mark.usefixtures("uncounted")
@pytest.mark.parametrize("arguments", [("stats",), ("ls",), ("tail",)])
def test_looking_is_quick(duraq, root, arguments):
    """Looking imports nothing that only writers need, and no watcher."""
    duraq.ok("put", "jobs", "1")
    packages, modules = imported_by("-C", str(root), *arguments)
    assert packages.isdisjoint(
        {"textual", "rich", "watchfiles", "msgspec", "durationpy", "anyio", "uuid_utils", *DATABASES}
    )
    assert modules.isdisjoint(
        {"duraq.worker", "duraq.storage.file", "duraq.queue", "duraq.storage.table", "duraq.storage.registry"}
    )


def commands():
    for name, (home, _) in COMMANDS.items():
        module = importlib.import_module(home if "." in home else f"duraq.cli.{home}")
        command = getattr(module, name)
        yield name, command
        for sub in command.commands.values() if isinstance(command, click.Group) else ():
            yield f"{name} {sub.name}", sub


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=[name for name, _ in commands()])
def test_every_command(duraq, name, command):
    """Every command has help of its own, by -h and by --help, and takes the common options."""
    for flag in ("-h", "--help"):
        assert duraq.ok(*name.split(), flag).startswith(f"Usage: duraq {name} ")
    assert command.help
    names = {option for parameter in command.params for option in parameter.opts}
    assert names >= {
        "-C",
        "--root",
        "-o",
        "--output",
        "--json",
        "--color",
        "--time",
        "-q",
        "-v",
        "--no-input",
    }


def test_help(duraq):
    """The first screen has examples and a line for each command."""
    text = duraq.ok("--help")
    assert text == duraq.ok("-h")
    assert text.count("  duraq ") >= 3
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name} " in text
        assert summary.split(";")[0] in " ".join(text.split())


def test_version(duraq):
    """It says its version."""
    assert duraq.ok("--version").startswith("duraq, version ")


def test_python_m(duraq):
    """``python -m duraq`` is the same program."""
    code, out, _ = duraq.run("--version")
    assert (code, out.decode()) == (0, duraq.ok("--version"))


# -- common options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "-C", "{}", "ls", "jobs"),
        ("ls", "jobs", "--json", "-C", "{}"),
        ("-C", "{}", "ls", "-o", "json", "jobs"),
        ("-o", "csv", "ls", "-o", "json", "jobs", "--root={}"),
    ],
)
def test_before_or_after(duraq, root, tmp_path, monkeypatch, arguments):
    """A common option may stand before the command or after it; the later one counts."""
    duraq.ok("put", "jobs", "1")
    duraq.root = tmp_path / "elsewhere"
    result = json.loads(duraq.ok(*[part.format(root) for part in arguments]))
    assert [row["payload"] for row in result["rows"]] == [1]


def test_common_options_of_a_group(duraq, queue):
    """They may stand between a group and its command as well."""
    queue.enqueue(1)
    queue.mark_failed(queue.dequeue(), dead=True)
    for arguments in (("--json", "dlq", "ls"), ("dlq", "--json", "ls"), ("dlq", "ls", "--json")):
        assert len(json.loads(duraq.ok(*arguments))["rows"]) == 1


def test_where_the_storage_is(tmp_path, monkeypatch):
    """The flag, then $DURAQ_ROOT, then ./.duraq if it is there, then the user's state directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("DURAQ_ROOT", raising=False)
    assert str(Settings().storage()) == "/home/ann/.local/state/duraq"
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert str(Settings().storage()) == "/state/duraq"
    (tmp_path / ".duraq").mkdir()
    assert str(Settings().storage()) == ".duraq"
    monkeypatch.setenv("DURAQ_ROOT", "/from/environment")
    assert str(Settings().storage()) == "/from/environment"
    assert str(Settings(root="/flag").storage()) == "/flag"


@pytest.mark.parametrize(
    "arguments",
    [
        ("stats",),
        ("ls",),
        ("ls", "jobs"),
        ("peek", "jobs"),
        ("show", "some-id"),
        ("tail",),
        ("dlq", "ls"),
        ("dlq", "retry", "some-id"),
        ("dlq", "purge", "jobs", "--yes", "--expect", "0"),
        ("get", "jobs"),
        ("get", "jobs", "--wait", "1ms"),
        ("ack", "jobs/some-id/1"),
        ("run", "jobs", "--once", "true"),
        ("pause", "jobs"),
        ("resume", "jobs"),
    ],
)
def test_only_put_makes_a_storage(duraq, root, arguments):
    """Every other command says that there is none, who named it, and leaves nothing behind."""
    result = duraq(*arguments)
    assert result.exit_code == Code.NOT_FOUND
    assert result.stdout == ""
    assert "named by $DURAQ_ROOT" in result.stderr
    assert not root.exists()


def test_ways_to_a_storage(duraq, root, tmp_path):
    """Where there is no storage it is said what makes one; a hint of who named it stands by that one only."""
    assert "duraq init makes one, as put does, -C names another" in duraq("ls").stderr
    file = tmp_path / "q.db"
    file.touch()
    assert f"is it sqlite:{file}?" in duraq("-C", str(file), "ls").stderr
    duraq.ok("init")
    missing = duraq("restore", str(tmp_path / "nope"))
    assert missing.stderr == f"duraq: {tmp_path}/nope: there is no such directory\n"
    file.chmod(0)
    assert "[Errno" not in duraq("-C", str(file / "below"), "init").stderr


def test_put_says_that_it_made_a_storage(duraq, root):
    """A mistyped path does not go unnoticed; an existing storage is not worth a word."""
    assert str(root) in duraq("put", "jobs", "1").stderr
    assert duraq("put", "jobs", "1").stderr == ""


# -- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidQueueName("x"), 2),
        (errors.InvalidPayload("x"), 2),
        (errors.QueueNotFound("x"), 4),
        (errors.EntryNotFound("x"), 4),
        (errors.NotAStorage("x"), 4),
        (errors.NotEmpty("x"), 5),
        (errors.LeaseLost("x"), 5),
        (errors.DuplicateEntry("x"), 5),
        (errors.QueueFull("x"), 5),
        (errors.StorageDamaged("x"), 7),
        (errors.PayloadUndecodable("x"), 7),
        (errors.StorageReadOnly("x"), 8),
        (PermissionError(13, "x"), 8),
        (OSError(30, "read-only file system"), 8),
        (OSError(28, "disk full"), 1),
        (errors.NotEnqueued("x"), 1),
        (errors.OutcomeUnknown("x"), 1),
        (ZeroDivisionError(), 1),
        (CommandError(Code.BUSY, "x"), 9),
        (errors.UnsupportedVersion("x"), 10),
    ],
)
def test_codes(error, code):
    """Each error has its exit code."""
    assert code_of(error) == code


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nosuch",), 2),
        (("put",), 2),
        (("put", "--nosuch"), 2),
        (("put", "UPPER", "1"), 2),
        (("put", "jobs", "{"), 2),
        (("put", "jobs", "1", "--delay", "5"), 2),
        (("put", "jobs", "1", "--priority", "4294967296"), 2),
        (("put", "jobs", "@/nonexistent"), 2),
        (("ls", "nosuch"), 4),
        (("ls", "jobs", "--state", "nosuch"), 2),
        (("ls", "jobs", "--fields", "nosuch"), 2),
        (("show", "nosuch"), 4),
        (("peek", "nosuch"), 4),
        (("stats", "nosuch"), 4),
        (("tail", "nosuch"), 4),
        (("get", "nosuch"), 4),
        (("get", "UPPER"), 2),
        (("ack", "nonsense"), 2),
        (("ack", "jobs/one/7"), 5),
        (("ack", "jobs/nosuch/1"), 5),
        (("nack", "jobs/one/1", "--dead", "--retry-in", "1s"), 2),
        (("pause", "nosuch"), 4),
        (("put", "jobs", "1", "--id", "one"), 5),
        (("put", "jobs", "1", "--id", "not an id"), 2),
        (("run", "jobs", "--", "no-such-program"), 2),
        (("dlq", "show", "one"), 4),
        (("dlq", "retry"), 2),
        (("dlq", "rm", "one", "--yes"), 4),
    ],
)
def test_failures(duraq, arguments, code):
    """What cannot be done says why on stderr, in one line or two, as text and as JSON; stdout is empty."""
    duraq.ok("put", "jobs", "1", "--id", "one")
    result = duraq(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.splitlines()[-1].startswith("duraq: ")
    assert "Traceback" not in result.stderr
    as_json = arguments if "--json" in arguments else (*arguments[:1], "--json", *arguments[1:])
    result = duraq(*as_json)
    assert (result.exit_code, result.stdout) == (code, "")
    (line,) = result.stderr.splitlines()
    error = json.loads(line)["error"]
    assert error["code"] == code
    assert error["message"]
    assert set(error) == {"code", "type", "message", "hint"}


def test_json_that_never_ends(duraq):
    """What never ends is no single JSON value, and is refused as one; JSON lines are fine."""
    duraq.ok("put", "jobs", "1")
    assert duraq("tail", "-f", "--json").exit_code == Code.USAGE


def test_nothing_said(duraq):
    """Without a command, help is shown and the exit code says that nothing was done."""
    for arguments in ((), ("dlq",)):
        result = duraq(*arguments)
        assert result.exit_code == Code.USAGE
        assert ("Commands:" if arguments else "Feed and work:") in result.stderr
        assert result.stdout == ""


def test_near_miss(duraq):
    """A mistyped command is answered with the nearest one."""
    assert "did you mean 'stats'" in duraq("stast").stderr


def test_the_unexpected(duraq, monkeypatch):
    """A bug is one line, and a traceback only for whoever asks; neither can command the terminal."""

    def boom(*_arguments, **_options):
        raise ZeroDivisionError("\x1b]0;owned\x07")

    monkeypatch.setattr(cli, "invoke", boom)
    result = duraq("stats")
    assert result.exit_code == Code.UNEXPECTED
    assert result.stderr == "duraq: unexpected ZeroDivisionError: \\x1b]0;owned\\x07\n"
    result = duraq("-v", "stats")
    assert "Traceback" in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, Code.INTERRUPTED), (signal.SIGTERM, Code.TERMINATED)]
)
@pytest.mark.parametrize("arguments", [("get", "jobs", "--wait", "1h"), ("tail", "-f")])
def test_signals(duraq, root, arguments, number, code):
    """A command that waits ends at a signal, quietly, with that signal's code, and leaves nobody waiting."""
    duraq.ok("put", "jobs", "1")
    token = duraq.ok("get", "jobs", "-o", "ids").strip()
    duraq.ok("ack", token)
    process = duraq.start(*arguments)
    if arguments[0] == "tail":
        process.stdout.readline()
    else:
        while not list((root / "jobs" / "waiters").glob("*.fifo")):
            assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate()
    assert (process.returncode, err) == (code, b"")
    assert not list((root / "jobs" / "waiters").glob("*.fifo"))


def test_closed_pipe(duraq):
    """Whoever reads the output may stop at any time; that is no error."""
    duraq.ok("put", "jobs", "--jsonl", stdin="\n".join(map(str, range(20_000))))
    process = duraq.start("ls", "jobs")
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


def test_narrow_encoding(duraq):
    """Characters that the output's encoding lacks are no reason to fail."""
    duraq.ok("put", "jobs", '"日本"')
    code, out, err = duraq.run(
        "ls", "jobs", env={**os.environ, "DURAQ_ROOT": str(duraq.root), "PYTHONIOENCODING": "latin-1"}
    )
    assert (code, err) == (0, b"")
    assert b'"\\u65e5\\u672c"' in out


@pytest.mark.parametrize("marker", [None, b"hello"])
def test_a_storage_without_its_marker(duraq, queue, root, marker):
    """Whose storage has lost its duraq.json, or has another one, is sent to repair, and not to init."""
    queue.enqueue("x")
    queue.storage.close()
    (root / "duraq.json").unlink()
    if marker is not None:
        (root / "duraq.json").write_bytes(marker)
    for command in (["stats"], ["put", "jobs", "1"]):
        said = duraq(*command).stderr
        assert "duraq repair --dry-run" in said
        assert "duraq init" not in said
    duraq.ok("repair", "--yes")
    assert duraq.json("stats")["rows"][0]["ready"] == 1


def test_a_directory_of_somebody_elses(duraq, root):
    """In a directory with other things in it there is no storage to be made, and that is not offered."""
    root.mkdir()
    said = duraq("stats")
    assert (said.exit_code, "duraq init makes one" in said.stderr) == (Code.NOT_FOUND, True)
    (root / "letter.txt").touch()
    said = duraq("stats")
    assert (said.exit_code, "duraq init" in said.stderr) == (Code.NOT_FOUND, False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_storage_of_another_user(duraq, queue, root):
    """Who is not the storage's user is told to be, and not that there is no storage."""
    queue.enqueue("x")
    queue.storage.close()
    for path in (root, *root.rglob("*")):
        os.chown(path, 65534, 65534)
    said = duraq("put", "jobs", "1")
    assert said.exit_code == Code.NOT_PERMITTED
    assert "belongs to user 65534" in said.stderr
    assert "sudo -u '#65534'" in said.stderr
    assert "duraq init" not in said.stderr


def test_a_storage_of_a_newer_version(duraq, queue, root):
    """A storage of a format that is not known has an exit code of its own, whatever is asked of it."""
    queue.enqueue("x")
    queue.storage.close()
    (root / "duraq.json").write_text('{"format":9}')
    for command in (["stats"], ["put", "jobs", "1"], ["verify"]):
        assert duraq(*command).exit_code == Code.TOO_NEW


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["completion"], "Choose from: bash, zsh, fish"),
        (["restore", "b 1", "r1"], "duraq -C r1 restore 'b 1'"),
        (["put", "jobs", "1", "--delay", "-10s"], "must be 0 to 3650 days, not -10 s"),
        (["put", "jobs", "1", "--at", "someday"], "such as 2026-11-24T10:00, tomorrow or @"),
        (["move", "jbos", "--to", "other"], "did you mean 'jobs'?"),
        (["move", "01a2", "--to", "other"], "duraq move QUEUE --where id=01a2 --to other"),
    ],
)
def test_slips_and_ways_out(duraq, queue, arguments, says):
    """Whoever has almost said it right is told how it is said."""
    queue.enqueue(1)
    said = duraq(*arguments)
    assert said.exit_code in {Code.USAGE, Code.NOT_FOUND}
    assert says in said.stderr
    assert "\\n" not in said.stderr
