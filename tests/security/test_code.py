"""What the code itself must not have, whatever it is given: told from its syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import duraq

HOME = Path(duraq.__file__).parent
MODULES = {path.relative_to(HOME).as_posix(): path.read_text("utf-8") for path in sorted(HOME.rglob("*.py"))}
# What makes objects, code or connections of bytes.
FORBIDDEN_IMPORTS = {
    *("pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "dbm", "yaml", "xml"),
    *("code", "codeop", "runpy", "imp", "socket", "ssl", "http", "urllib", "ftplib", "smtplib", "requests"),
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint", "input", "os.system", "os.popen"}
# Who may all the same: parent and child speak over a pair of sockets, a worker to systemd over another one.
MAY_IMPORT = {
    "worker_pool.py": {"socket"},
    "cli/notify.py": {"socket"},
    "storage/registry.py": {"urllib"},  # of which it takes what reads a URL, and nothing that follows one
}
# Who runs programs: the one of duraq run; the user's own pager.
RUN = {"cli/programs.py", "cli/pager.py"}
# Who imports by name, and the table that the name comes from.
TABLES = {"__init__.py": "_HOMES", "cli/__init__.py": "COMMANDS", "exposition.py": "FORMATS"}
# Or that stands in the call itself.
BY_NAME = {"cli/demo.py"}
# Who opens files by their paths: /proc; @FILE, which the caller names; what the demo makes for itself.
BY_PATH = {
    "bookmarks.py",  # of who looks, in the user's cache
    *("config.py", "cli/configuring.py"),  # what the user has configured
    "cli/helping.py",  # texts of the package
    *("clock.py", "journal/mounts.py", "journal/probe.py", "journal/lease.py"),
    *("cli/feed.py", "cli/demo.py", "cli/demo_job.py"),
}
# Who makes files by system calls: the two of the engine; --textfile, /dev/null, the demo's own.
BY_CALLS = {
    *("journal/filesystem.py", "journal/fifo.py", "cli/metrics.py", "cli/stage.py", "cli/demo.py"),
    "storage/sqlite.py",  # a database, which SQLite itself would make for all to read
    "cli/letters.py",  # a file without a name, for what comes from stdin and is read twice
}


def nodes(kind: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    for name, text in MODULES.items():
        yield from ((name, node) for node in ast.walk(ast.parse(text)) if isinstance(node, kind))


def calls() -> Iterator[tuple[str, str, str]]:
    """In which module, what is called, as in ``os.open``, and the whole call."""
    for name, node in nodes(ast.Call):
        yield name, ast.unparse(node.func), ast.unparse(node)


def test_every_module_is_looked_at():
    """The lists above name modules that there are."""
    assert MODULES.keys() >= {*BY_PATH, *BY_CALLS, *TABLES, *MAY_IMPORT, *RUN, *BY_NAME}


def test_nothing_is_made_into_objects_or_reaches_the_network():
    """No module imports pickle or its like, nor what speaks to other machines."""
    for name, node in nodes(ast.Import | ast.ImportFrom):
        imported = (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
        )
        found = {each.partition(".")[0] for each in imported} & FORBIDDEN_IMPORTS
        assert found <= MAY_IMPORT.get(name, set()), (name, ast.unparse(node))
    made = [whole for _, called, whole in calls() if called.startswith("socket.")]
    assert sorted(made) == [
        "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)",
        "socket.socketpair()",
    ]


def test_locks_are_taken_by_the_kernels_own_call():
    """Locks are flock's, on what is open already: no library opens, empties or removes a file for them."""
    found = {name: called for name, called, _ in calls() if called.rpartition(".")[2] in {"flock", "lockf"}}
    assert found == {"journal/filesystem.py": "fcntl.flock", "journal/lease.py": "flock"}
    assert not [name for name, text in MODULES.items() if "portalocker" in text or "filelock" in text]


def test_no_text_becomes_code():
    """Nothing is evaluated, no shell is started, and only the user's own programs are run."""
    for name, called, whole in calls():
        assert called not in FORBIDDEN_CALLS, (name, whole)
        if called.startswith("subprocess."):
            assert name in RUN, whole
            assert "shell" not in whole


def test_imports_by_name_are_of_names_in_a_table():
    """A module is imported by a name only if the name stands in a table of the code."""
    found = {name: whole for name, called, whole in calls() if called.endswith("import_module")}
    assert found.keys() == TABLES.keys() | BY_NAME
    assert found["cli/demo.py"] == "importlib.import_module('duraq_dashboard.cli')"
    assert found["cli/__init__.py"] == "importlib.import_module(name if '.' in name else f'duraq.cli.{name}')"
    assert "name = COMMANDS[cmd_name][0]" in MODULES["cli/__init__.py"]
    assert found["exposition.py"] == "import_module(FORMATS[form])"
    assert found["__init__.py"] == "importlib.import_module(home)"
    assert "home = _HOMES.get(name)" in MODULES["__init__.py"]


def test_files_are_opened_in_few_places():
    """A storage's files are opened through the one file system, and nothing is truncated by opening it."""
    for name, called, whole in calls():
        method = called.rpartition(".")[2]
        if called == "open" or method in {"read_text", "read_bytes", "write_text", "write_bytes"}:
            assert name in BY_PATH, (name, whole)
        if called in {"os.open", "os.mkdir", "os.mkfifo", "os.mknod"} or called.startswith("tempfile."):
            assert name in BY_CALLS, (name, whole)
    assert not [name for name, text in MODULES.items() if "O_TRUNC" in text]


def test_what_is_opened_is_neither_followed_nor_waited_for():
    """Every opening by a name in a directory says that no link is followed and that no FIFO is waited for."""
    openings = [
        whole for name, called, whole in calls() if called == "os.open" and name.startswith("journal/")
    ]
    assert sorted(openings) == [
        "os.open('.', _OPEN_DIRECTORY, dir_fd=directory)",  # once more what is open
        "os.open(name, access | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)",
        "os.open(name, flags, FILE_MODE, dir_fd=directory)",
        "os.open(path, _OPEN_DIRECTORY)",  # what the caller has named, be it a link
        "os.open(path.parent, _OPEN_DIRECTORY)",
    ]
    text = MODULES["journal/filesystem.py"]
    assert "os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK" in text
    assert "_opened(name, _OPEN_DIRECTORY | os.O_NOFOLLOW, parent)" in text
    assert text.count("_opened(name, ") == 2
