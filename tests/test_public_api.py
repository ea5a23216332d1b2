"""What ``import duraq`` gives, and what it costs."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from pkgutil import iter_modules, walk_packages

import pytest

import duraq
from duraq import errors

# What only some programs need; importing it would cost every program time and memory.
HEAVY = {"textual", "rich", "watchfiles", "msgspec", "click", "anyio", "asyncio", "trio", "pydantic"} | {
    "attrs",
    "prometheus_client",
    "opentelemetry",
    "regex",
    "sqlite3",
    "lmdb",
    "psycopg",
}
# Modules become attributes of their package when they are imported; of those some happen to be.
MODULES = {module.name for module in iter_modules(duraq.__path__)} | {"importlib"} | {"TYPE_CHECKING", "Any"}
# What needs an extra, and what would hide a builtin.
BY_NAME = {"LMDBStorage", "PostgresStorage", "open"}


def promised_names():
    """The names that a type checker finds in the package, each with the module it comes from."""
    source = ast.parse(Path(duraq.__file__).read_text("utf-8"))
    imports = [
        node for node in ast.walk(source) if isinstance(node, ast.ImportFrom) and node.module != "typing"
    ]
    return {alias.name: node.module for node in imports for alias in node.names}


def test_the_list_of_names():
    """``__all__`` is sorted and names all that is public, but for what a program must ask for by its name."""
    assert duraq.__all__ == sorted(duraq.__all__)
    assert duraq.__all__ == sorted(set(promised_names()) - BY_NAME)
    assert set(promised_names()) == {name for name in dir(duraq) if not name.startswith("_")} - MODULES


def test_every_name_is_there():
    """Each public name is what the module has that a type checker finds it in, and there are no others."""
    for name, module in promised_names().items():
        assert getattr(duraq, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="Nothing"):
        duraq.Nothing  # noqa: B018 - the look is the point


def test_every_error_is_public():
    """Whatever DuraQ raises on purpose can be caught by a public name, and is a DuraqError."""
    raised = {name for name, value in vars(errors).items() if isinstance(value, type)}
    raised = {name for name in raised if issubclass(getattr(errors, name), BaseException)}
    assert raised <= set(duraq.__all__)
    elsewhere = [
        f"{module.name}.{name}"
        for module in walk_packages(duraq.__path__, "duraq.")
        if module.name not in {"duraq.__main__", "duraq.errors"}
        for name, value in vars(importlib.import_module(module.name)).items()
        if isinstance(value, type) and issubclass(value, duraq.DuraqError) and value.__module__ == module.name
        # A finer kind of one that is public may be a module's own.
        if duraq.DuraqError in value.__bases__
    ]
    assert elsewhere == []
    assert all(issubclass(getattr(duraq, name), duraq.DuraqError) for name in raised)


def test_the_tree_of_errors():
    """The tree at the head of ``duraq.errors`` is the tree of the classes."""
    base = {}
    branch = []
    for line in errors.__doc__.splitlines():
        name = line.split()[0] if line.strip() else ""
        if name in vars(errors):
            depth = (len(line) - len(line.lstrip())) // 2
            del branch[depth:]
            base[name] = branch[-1] if branch else "Exception"
            branch.append(name)
    classes = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert base == {name: value.__bases__[0].__name__ for name, value in classes.items()}


def test_the_version():
    """The package says its version, and it is that of the distribution."""
    from importlib.metadata import version  # noqa: PLC0415 - only here

    assert duraq.__version__ == version("duraq")


@pytest.mark.usefixtures("uncounted")
@pytest.mark.parametrize("program", ["import duraq", "from duraq import FileStorage, Queue, QueueManager"])
def test_what_an_import_brings(program):
    """Neither the package nor a queue in files imports what only some programs need."""
    program += "; import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert HEAVY.isdisjoint(found.stdout.split())


# As if the extras were not installed.
WITHOUT_EXTRAS = "import sys; sys.modules['lmdb'] = sys.modules['psycopg'] = None; "


def test_all_of_it_at_once():
    """``from duraq import *`` works without any extra, and leaves Python's own names as they are."""
    program = WITHOUT_EXTRAS + "import builtins; from duraq import *; assert open is builtins.open; Queue"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(("name", "extra"), [("LMDBStorage", "lmdb"), ("PostgresStorage", "postgres")])
def test_what_needs_an_extra(name, extra):
    """What needs an extra says which, if that is not installed."""
    program = WITHOUT_EXTRAS + f"from duraq import {name}"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError")
    assert f"pip install 'duraq[{extra}]'" in last
