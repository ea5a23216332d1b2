"""The documents say what is true: examples run, links lead somewhere, commands and tests exist."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from conftest import BACKENDS

from duraq import Queue
from duraq.cli import cli

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
GUARANTEES = ROOT / "docs" / "GUARANTEES.md"
SECURITY = ROOT / "docs" / "SECURITY.md"
SECTIONS = re.split(r"^## ", (ROOT / "docs" / "PYTHON.md").read_text(), flags=re.MULTILINE)[1:]
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page, language):
    """The fenced blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def anchors(page):
    """What a link into the page may name, by GitHub's rules for headings."""
    headings = re.findall(r"^#+ +(.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page):
    """Each duraq command line that a page quotes, split as a shell would."""
    fenced = "\n".join(blocks(page, "(?:sh|console|)"))
    lines = [line.strip().removeprefix("$ ") for line in fenced.splitlines()]
    quoted = re.findall(r"`(duraq [^`]+)`", page.read_text())
    return [shlex.split(line, comments=True) for line in lines + quoted if line.startswith("duraq ")]


def options_of(command):
    """Every spelling of every option that a command has, those for help included."""
    # As within `duraq`: a command remembers the help option of the first context that asks it for one.
    settings = {"help_option_names": ["-h", "--help"], **command.context_settings}
    context = click.Context(command, info_name="duraq", **settings)
    return {name for option in command.get_params(context) for name in (*option.opts, *option.secondary_opts)}


def problem_with(group, words):
    """What click does not know in a command line, or None."""
    command = group
    # What stands behind -- is the program that is run.
    for word in words[: words.index("--")] if "--" in words else words:
        if word.startswith("-"):
            if word.partition("=")[0] not in options_of(command):
                return f"{command.name} has no option {word}"
        elif hasattr(command, "list_commands"):
            found = command.get_command(click.Context(command, info_name="duraq"), word)
            if found is None:
                return f"{command.name} has no command {word}"
            command = found
    return None


def test_the_example_of_a_storage(monkeypatch):
    """The storage of one's own that the documents show works, and has no more than the lines they say."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    with importlib.import_module("example_storage").DictStorage() as storage:
        jobs = Queue("jobs", storage)
        jobs.enqueue("work", id="a", key="k")
        assert jobs.enqueue("work", key="k") == "a"
        jobs.mark_completed(jobs.dequeue())
        assert not jobs.entries()
    lines = (ROOT / "docs/example_storage.py").read_text().count("\n")
    assert lines <= 150
    assert f"with dictionaries, in {lines} lines" in (ROOT / "docs/STORAGES.md").read_text()


def test_the_example_runs(tmp_path):
    """The README's example, copied into an empty file, runs and prints what the README says it prints."""
    (example,) = blocks(README, "python")
    (expected,) = blocks(README, "text")
    (tmp_path / "example.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.partition("\n")[0])
def test_the_examples_from_python(section, tmp_path):
    """Each example of docs/PYTHON.md, copied into an empty file, prints what stands below it."""
    ((example, expected),) = re.findall(
        r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", section, re.MULTILINE | re.DOTALL
    )
    (tmp_path / "example.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
    assert "Traceback" not in done.stderr


def test_every_module_has_its_line():
    """The table of modules names each of them, so that a newcomer learns what it is for."""
    text = (ROOT / "docs/ARCHITECTURE.md").read_text()
    table = text[text.index("## The modules") : text.index("## The life of an enqueue")]
    named = {name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", table)}
    packages = ("duraq", "duraq/journal", "duraq/migration", "duraq/storage")
    there = {path.stem for package in packages for path in (ROOT / package).glob("[!_]*.py")}
    assert there - named == set()


def test_what_differs_in_the_suite():
    """Which tests of the contract are not asked of which storage is as the document says."""
    names = {"memory": "MemoryStorage", "file": "FileStorage", "small-file": "FileStorage"}
    names |= {"sqlite": "SQLiteStorage", "lmdb": "LMDBStorage", "postgres": "PostgresStorage"}
    lacking = {}
    for ability in ("survives", "shared", "files", "wakes"):
        lacking[ability] = {names[each] for each in names if ability not in BACKENDS[each].abilities}
    rows = re.findall(r"^\| `(\w+)`: .*? \| (.*?) \|", (ROOT / "docs/STORAGES.md").read_text(), re.MULTILINE)
    assert {name: set(re.findall(r"`(\w+)`", storages)) for name, storages in rows} == lacking


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Every relative link of a document leads to a file, and to a heading of it if it names one."""
    for link in LINK.findall(page.read_text()):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_quoted_commands_exist(page):
    """Every duraq command line that a document quotes names a command, and options that it has."""
    problems = [problem for words in commands(page) if (problem := problem_with(cli, words[1:]))]
    assert problems == []


def test_the_readme_quotes_commands():
    """The README shows how the command line is used, so that the test above has something to look at."""
    assert len(commands(README)) >= 5


def test_promises_name_tests_that_exist():
    """Every promise has its heading, and says which tests show it, all of which exist, or that none does."""
    text = GUARANTEES.read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    promises = [section for section in sections if re.match(r"P\d", section)]
    assert [promise.split()[0] for promise in promises] == [f"P{number}" for number in range(1, 17)]
    for promise in promises:
        shown = promise.partition("*Shown by:*")[2]
        tests = re.findall(r"`(tests/[^`]+)`", shown)
        assert tests or "not proven yet" in shown, promise
        assert [test for test in tests if not (ROOT / test).is_file()] == []


def test_security_names_tests_that_exist():
    """Every attempt that docs/SECURITY.md speaks of names a test that exists."""
    attempts, limits = SECURITY.read_text().split("## What it is made of")
    nowhere = [
        item.partition(".")[0]
        for item in re.split(r"^- ", attempts, flags=re.MULTILINE)[1:]
        if "*Shown by:*" not in re.sub(r"\s+", " ", item)
    ]
    assert nowhere == []
    named = re.findall(r"`(tests/[^`:]+)(?:::(\w+))?`", attempts + limits)
    assert len(named) > 40
    missing = [
        (file, test)
        for file, test in named
        if f"def {f'{test}(' if test else 'test_'}" not in (ROOT / file).read_text()
    ]
    assert missing == []


def test_the_readme_links_every_promise_it_makes():
    """Each row of the README's table of promises links to that promise."""
    links = re.findall(r"^\|.*\(docs/GUARANTEES\.md#(p\d+)-", README.read_text(), re.MULTILINE)
    assert len(links) >= 8
    assert len(set(links)) == len(links)


@pytest.mark.parametrize(("page", "limit"), [(README, 150), (ROOT / "docs" / "FORMAT.md", 200)])
def test_the_page_is_short(page, limit):
    """A page that is meant to be read stays short."""
    assert len(page.read_text().splitlines()) <= limit


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page):
    """Every make target that a document names is one of the Makefile's."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= targets
