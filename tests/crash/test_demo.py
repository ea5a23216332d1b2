"""The demo is an end-to-end test of its own: processes, a real SIGKILL, retries, dead letters, real syncs."""

import fcntl
import json
import shutil
import signal
import subprocess
import sys
import time

import pytest

from duraq.cli.demo_job import EmptyText, Measured, SourceFile, measure
from duraq.cli.demo_report import compare
from duraq.journal import record

FILES = 60
PATIENCE = 60  # seconds; nothing here is about speed
DEMO = [sys.executable, "-m", "duraq.cli.demo"]
# The same with something replaced first.
TAMPERED = [sys.executable, "-c"]
RUN = "import sys; from duraq.cli import demo, stage; {}; sys.exit(stage.run_safely(demo.demo, sys.argv[1:]))"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A small tree of files: several directories, some binary, one empty, one link."""
    top = tmp_path_factory.mktemp("tree")
    for number in range(FILES):
        path = top / f"part{number % 4}" / f"{number:02}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"a line\n" * number + bytes(range(number)))
    (top / "link").symlink_to(top / "part0" / "00.txt")
    return top


@pytest.fixture(scope="module")
def finished(tree, tmp_path_factory):
    """The storage of a demo that has run, its summary, and what was wrong with its lines while it ran."""
    storage = tmp_path_factory.mktemp("demo") / "a storage"
    command = [*DEMO, tree, "--workers", "3", "--storage", storage, "--json"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    looks = []
    while running.poll() is None:
        looks.append(read_lines(storage))
        time.sleep(0.005)
    summary = json.loads(running.stdout.read())
    running.stdout.close()
    return storage, running.returncode, summary, looks


def read_lines(storage):
    """Every whole line of every segment as JSON, its checksum verified."""
    found = []
    for path in sorted(storage.glob("*/segments/*.jsonl")):
        data = path.read_bytes()
        for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
            record.check(line)
            found.append(json.loads(line))
    return found


def test_every_file_is_worked_once(finished):
    """Nothing is lost, worked twice or different, whichever worker is killed."""
    _, status, summary, _ = finished
    made_up = {"arriving.txt", "empty.txt", "latin-1.txt", "image.txt", "directory.txt", "deleted.txt"}
    assert status == 0
    assert summary["schema"] == "duraq.demo/1"
    assert summary["holds"] is True
    assert summary["comparison"] == {
        "files": FILES + len(made_up),
        "lost": 0,
        "twice": 0,
        "differing": 0,
        "failures_expected": 5,
        "failures_found": 5,
    }


def test_the_killed_workers_entry_comes_back(finished):
    """The killed worker's attempt is counted, its cause kept, and another worker has the entry next."""
    _, _, summary, _ = finished
    kill = summary["kill"]
    assert kill["cause"] == "worker_died"
    assert kill["attempt"] == 2
    assert kill["worker"] != kill["next_worker"]
    assert kill["back_after"] > 0


def test_failures_end_among_the_dead_letters(finished):
    """What cannot be worked is tried three times and kept, with its error."""
    _, _, summary, _ = finished
    dead = {group["error"]: group for group in summary["dead_letters"]}
    assert {error: group["count"] for error, group in dead.items()} == {
        "UnicodeDecodeError": 2,
        "EmptyText": 1,
        "IsADirectoryError": 1,
        "FileNotFoundError": 1,
    }
    assert all(len(group["tried_at"]) == 3 for group in dead.values())


def test_every_line_is_whole_at_all_times(finished):
    """While the demo runs and afterwards, each line parses as JSON and its checksum is right."""
    storage, _, _, looks = finished
    lines = read_lines(storage)
    # The looks themselves raise if a line is not; and none of them sees more than there is in the end.
    assert max(map(len, looks)) <= len(lines)
    ops = [line["op"] for line in lines]
    assert ops.count("complete") == FILES + 1
    assert ops.count("dead") == 5
    assert ops.count("enqueue") == FILES + 6 + FILES + 1
    assert all(path.read_bytes().endswith(b"\n") for path in storage.glob("*/segments/*.jsonl"))


def test_the_printed_commands_work(finished):
    """Each command that is printed can be pasted into a shell as it is."""
    storage, _, summary, _ = finished
    tail, grep, jq, stats, dlq = summary["look"]
    # Without -f, which would never end.
    assert '"op":' in shell(tail.replace("tail -f", "tail -n 1"))
    life = [line.partition(":")[2] for line in shell(grep).splitlines()]
    ops = [json.loads(line)["op"] for line in life]
    assert ops == ["enqueue", "lease", "fail", "lease", "complete", "enqueue"]
    if shutil.which("jq"):
        assert "a text of 0 bytes" in shell(jq)
    assert "files" in shell(stats)
    assert len(shell(dlq).splitlines()) >= 1 + 5
    assert all(str(storage) in command for command in summary["look"])


def shell(command):
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout


def test_the_report_is_for_people(tree, tmp_path):
    """Without --json the same is told in a page of text; an earlier demo's storage is replaced."""
    command = [*DEMO, tree, "--workers", "3", "--storage", tmp_path / "storage"]
    for _ in range(2):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert done.stdout.endswith("\nThe comparison holds.\n")
        assert f"\n  files {FILES + 6:>14}\n  lost {0:>15}\n" in done.stdout
        assert f"{FILES + 6} of {FILES + 6} entries are done" in done.stderr
        assert max(map(len, done.stdout.splitlines()[:30])) < 120


def test_one_worker_is_enough(tree, tmp_path):
    """If the only worker is killed, its replacement goes on."""
    command = [*DEMO, tree, "--workers", "1", "--storage", tmp_path / "storage", "--json"]
    summary = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert summary["holds"] is True
    assert summary["took_part"] == 2


def test_other_directories_are_left_alone(tree, tmp_path):
    """A directory that is not empty, and no earlier demo's, is refused; so is input in the storage itself."""
    (tmp_path / "precious").write_text("mine")
    refused = demo_in(tmp_path, tree)
    assert refused.returncode == 2
    assert "not empty" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    refused = demo_in(tree.parent, tree)
    assert refused.returncode == 2
    assert "in the storage itself" in refused.stderr


def test_a_planted_mark_is_not_followed(tree, tmp_path):
    """A link in the place of an earlier demo's lock is refused, and what it points to stays as it was."""
    (tmp_path / "q" / ".demo").mkdir(parents=True)
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "q" / ".demo" / "lock").symlink_to(tmp_path / "victim")
    refused = demo_in(tmp_path / "q", tree)
    assert refused.returncode == 1
    assert "somebody put it there" in refused.stderr
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "q" / ".demo" / "lock").is_symlink()


def demo_in(storage, tree):
    return subprocess.run([*DEMO, tree, "--storage", storage], capture_output=True, text=True, check=False)


def test_a_difference_is_exit_status_1(tree, tmp_path):
    """If the straight loop finds anything else, the demo says so and fails."""
    tamper = "demo.measure = lambda file: demo.__dict__['SourceFile'](file.path)"
    command = [*TAMPERED, RUN.format(tamper), tree, "--workers", "3", "--storage", tmp_path / "s", "--json"]
    done = subprocess.run(command, capture_output=True, check=False)
    summary = json.loads(done.stdout)
    assert done.returncode == 1
    assert summary["holds"] is False
    assert summary["comparison"]["differing"] == FILES + 6


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
    ids=lambda value: getattr(value, "name", None),
)
def test_an_interrupted_demo_leaves_no_process(tree, tmp_path, number, status):
    """Whatever ends the demo, its workers end as well, even one that waits for a file that never comes."""
    storage = tmp_path / "storage"
    never = "demo._Run._kill_the_holder = lambda *_: 0.0"
    command = [*TAMPERED, RUN.format(never), tree, "--workers", "3", "--storage", storage]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    # Only the file that never comes is left then, and is held.
    until(lambda: sum(line["op"] in {"complete", "dead"} for line in read_lines(storage)) == FILES + 5)
    assert not is_free(storage / ".demo" / "lock")
    running.send_signal(number)
    assert running.wait(PATIENCE) == status
    until(lambda: is_free(storage / ".demo" / "lock"))
    assert list(storage.glob("leases/*.json")) == []


def is_free(lock):
    """Whether no process of the demo has it any more."""
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


GOOD, BAD = Measured("good", 3, "abc"), "EmptyText: a text of 0 bytes"


@pytest.mark.parametrize(
    ("found", "completions", "fault"),
    [
        ([("good", GOOD), ("bad", BAD)], {"good": 1}, None),
        ([("bad", BAD)], {"good": 1}, "lost"),  # completed, and no result
        ([("good", GOOD), ("bad", BAD)], {}, "lost"),  # a result, and neither completed nor dead
        ([("good", GOOD)], {"good": 1}, "lost"),
        ([("good", GOOD), ("bad", BAD)], {"good": 2}, "twice"),
        ([("good", GOOD), ("bad", BAD)], {"good": 1, "bad": 1}, "twice"),
        ([("good", Measured("good", 4, "abc")), ("bad", BAD)], {"good": 1}, "differing"),
        ([("good", GOOD), ("bad", "OSError: no")], {"good": 1}, "differing"),
        ([("good", GOOD), ("bad", Measured("bad", 0, ""))], {"good": 1, "bad": 1}, "differing"),
        ([("good", GOOD), ("bad", BAD), ("new", GOOD)], {"good": 1}, "differing"),
    ],
)
def test_every_fault_is_seen(found, completions, fault):
    """The comparison holds for exactly one result or death of each file, as the straight loop has it."""
    compared = compare({"good": GOOD, "bad": BAD}, found, completions)
    assert compared.holds is (fault is None)
    assert [name for name in ("lost", "twice", "differing") if getattr(compared, name)] == (
        [fault] if fault else []
    )


def test_measuring(tmp_path):
    """Lines are counted by their ends; a text has to be UTF-8 and not empty."""
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo")
    assert measure(SourceFile(str(path), text=True)).lines == 1
    path.write_bytes(b"")
    assert measure(SourceFile(str(path))).lines == 0
    with pytest.raises(EmptyText):
        measure(SourceFile(str(path), text=True))
    path.write_bytes(b"\xff")
    assert measure(SourceFile(str(path))).sha256.startswith("a8100ae6")
    with pytest.raises(UnicodeDecodeError):
        measure(SourceFile(str(path), text=True))
