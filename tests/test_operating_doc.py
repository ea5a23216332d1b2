"""The operator's guide: its recipes with plain tools are run, and print what it says they print."""

import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from duraq import FileStorage, FixedDelay, Queue
from duraq.testing import FakeClock

PAGE = Path(__file__).parent.parent / "docs" / "OPERATING.md"
# A recipe is a command, behind a $, and the lines that it prints.
RECIPE = re.compile(r"^\$ (?P<command>.*)\n(?P<prints>(?:(?!\$ |```).*\n)*)", re.MULTILINE)
BLOCKS = re.findall(r"^```recipe\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
RECIPES = [(found["command"], found["prints"]) for block in BLOCKS for found in RECIPE.finditer(block)]
SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """The one that the page speaks of."""
    clock = FakeClock()
    path = tmp_path_factory.mktemp("operating") / "storage"
    with FileStorage(path, durability="process", clock=clock) as storage:
        emails = Queue("emails", storage, retry_policy=FixedDelay(max_attempts=2, delay=SECOND))

        def attempt(error=None):
            entry = emails.dequeue()
            clock.advance(SECOND)
            if error is None:
                emails.mark_completed(entry)
            else:
                emails.mark_failed(entry, error)

        for number in range(1, 10):
            to = "nobody" if number in {6, 7} else "ann@example.com"
            emails.enqueue({"to": to, "n": number}, id=f"order-{number}")
            if number in {3, 5}:
                attempt(ConnectionError("connection closed"))
                clock.advance(SECOND)
            if number <= 5:
                attempt()
            elif number <= 7:
                attempt(ValueError(f"not an address: {to!r}"))
                clock.advance(SECOND)
                attempt(ValueError(f"not an address: {to!r}"))
            elif number == 8:
                attempt(ConnectionError("connection refused"))
        hung = emails.dequeue()
        emails.end_lease(hung.id, hung.token, who="ann", reason="it hangs")
        emails.pause("the mail server is down", who="bob")
        yield path


@pytest.mark.parametrize(("command", "prints"), RECIPES, ids=range(len(RECIPES)))
def test_recipes(storage, command, prints):
    """Each recipe ends well, and prints what stands below it."""
    for tool in ("bash", "jq", "flock"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=storage,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    # How far uniq and wc indent their numbers differs from system to system.
    printed = "\n".join(line.strip() for line in done.stdout.splitlines())
    assert printed == "\n".join(line.strip() for line in prints.splitlines())


def test_there_are_recipes():
    """The page has recipes, so that the test above has something to run."""
    assert len(RECIPES) >= 10
