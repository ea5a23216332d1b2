"""duraq metrics: what monitoring reads, and the file that node_exporter reads."""

import os
import re
import stat
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from duraq import DeadLetterQueue, FileStorage, Queue, QueueMetrics
from duraq.cli.failing import Code
from duraq.exposition import METRICS, REGISTRY, StorageCollector
from duraq.inspector import Inspector
from duraq.journal.log import Sizes
from duraq.ledger import Counters
from duraq.metrics import Histogram

METRICS_PAGE = Path(__file__).parents[3] / "docs" / "METRICS.md"


def samples(text, parse=parse):
    """Name, labels and value of each sample."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def of(found, name, queue="jobs", **labels):
    return found[(name, *sorted({"queue": queue, **labels}.items()))]


@pytest.fixture
def busy(queue):
    """A queue in which one of everything has happened."""
    queue.enqueue_many(range(6))
    queue.enqueue("later", delay=timedelta(hours=1))
    queue.mark_completed(queue.dequeue())
    queue.mark_failed(queue.dequeue())
    queue.mark_failed(queue.dequeue())
    queue.release(queue.dequeue())
    queue.mark_failed(queue.dequeue(), dead=True)
    queue.mark_failed(queue.dequeue(), dead=True)
    dead = DeadLetterQueue("jobs", None, queue.storage)
    first, second, _ = dead.list()
    dead.retry(first.id)
    dead.remove(second.id)
    queue.dequeue()
    return queue


# -- the text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "parse"), [("prometheus", parse), ("openmetrics", parse_openmetrics)])
def test_the_text_is_what_the_queue_says(duraq, busy, form, parse):
    """Prometheus' own parser reads from it what the queue itself tells."""
    found = samples(duraq.ok("metrics", "--format", form), parse)
    told = busy.metrics()
    for state in ("scheduled", "ready", "leased", "dead"):
        assert of(found, "duraq_entries", state=state) == getattr(told.counts, state)
    for name in ("enqueued", "completed", "failed", "dead", "expired", "requeued", "removed", "restored"):
        assert of(found, f"duraq_{name}_total") == getattr(told.counters, name)
    for cause in ("worker_died", "timed_out", "released"):
        assert of(found, "duraq_lease_losses_total", cause=cause) == getattr(told.counters, cause)
    for name in ("wait", "run"):
        histogram = getattr(told, name)
        assert of(found, f"duraq_{name}_seconds_count") == histogram.count > 0
        assert of(found, f"duraq_{name}_seconds_sum") == pytest.approx(histogram.sum)
        assert of(found, f"duraq_{name}_seconds_bucket", le="+Inf") == histogram.count
        assert of(found, f"duraq_{name}_seconds_bucket", le="0.005") == histogram.buckets[0]
    assert of(found, "duraq_last_completed_timestamp_seconds") == told.last_completed.timestamp()
    assert of(found, "duraq_oldest_ready_age_seconds") > 0
    assert of(found, "duraq_disk_bytes") == told.bytes_on_disk > of(found, "duraq_live_bytes") > 0
    assert of(found, "duraq_workers") == 1
    assert of(found, "duraq_paused") == of(found, "duraq_waiting") == 0


def test_every_metric_of_the_table_is_there_and_no_other(duraq, busy):
    """Each has its name, its kind and its sentence in the text, and its labels on each sample."""
    text = duraq.ok("metrics")
    families = {family.name: family for family in parse(text)}
    for metric in REGISTRY:
        family = families.pop(metric.name.removesuffix("_total"))
        assert (family.type, family.documentation) == (metric.kind, metric.says)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)
    assert families == {}
    assert not re.search(
        r"^[^#].* \d{10,}$", text, re.MULTILINE
    )  # a timestamp makes node_exporter skip the file


@pytest.mark.parametrize("metric", REGISTRY, ids=lambda metric: metric.name)
def test_names(metric):
    """Names follow the rules of Prometheus: a prefix, base units, _total for counters and nothing else."""
    assert re.fullmatch(r"duraq(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.name.endswith("_seconds") or metric.kind != "histogram"
    assert metric.says.endswith((".", "this"))
    assert len(metric.says) < 110


def test_everything_that_is_counted_is_told():
    """No counter of the fold is missing from the table."""
    found = set()
    for name in Counters._fields:
        one = QueueMetrics("jobs", None, counters=Counters(**{name: 7}))
        found |= {
            name
            for metric in METRICS
            if metric.name != "duraq_last_completed_timestamp_seconds"
            for _, value in metric.read(one)
            if value == 7
        }
    assert found == set(Counters._fields)


def test_the_page_has_the_table():
    """docs/METRICS.md has each metric as the registry has it, the order of the counters, and the bounds."""
    text = METRICS_PAGE.read_text()
    rows = [
        f"| `{each.name}` | {each.kind} | {' '.join(f'`{label}`' for label in each.labels)} | {each.says} |"
        for each in REGISTRY
    ]
    assert re.findall(r"^\| `duraq.*$", text, re.MULTILINE) == rows
    assert ", ".join(f"`{name}`" for name in Counters._fields) in text
    assert ", ".join(f"{bound:g}" for bound in Histogram.bounds) in text


def test_only_some_queues(duraq, busy, storage):
    """With names it is those queues, and a name that there is none of is an error."""
    Queue("others", storage).enqueue(1)
    assert {key[1] for key in samples(duraq.ok("metrics", "others")) if key[1][0] == "queue"} == {
        ("queue", "others")
    }
    assert duraq("metrics", "nothing").exit_code == 4


def test_an_empty_storage(duraq, storage):
    """Without queues only the version is told."""
    assert [name for name, *_ in samples(duraq.ok("metrics"))] == ["duraq_build_info"]


def test_a_damaged_queue(duraq, root):
    """The others are told, the damaged one has its problem and nothing else, and the code says so."""
    with FileStorage(root, durability="process", sizes=Sizes(journal=1 << 14, segment=2000)) as storage:
        Queue("others", storage).enqueue(1)
        # So many that the journal does not know the first any more, and could not mend it.
        for number in range(300):
            Queue("jobs", storage).enqueue(number)
    segment = min((root / "jobs" / "segments").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b'"data":0', b'"data":1'))
    result = duraq("metrics")
    found = samples(result.stdout)
    assert of(found, "duraq_enqueued_total", queue="others") == 1
    assert [key for key in found if ("queue", "jobs") in key] == [
        ("duraq_queue_problem", ("problem", "StorageDamaged"), ("queue", "jobs"))
    ]
    assert result.exit_code == 7
    assert "the checksum is wrong" in result.stderr


def test_it_only_looks(duraq, busy, root):
    """Nothing in the storage changes by it, and it works where nothing can be written."""
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*") if path.is_dir()}
    for path in modes:
        path.chmod(0o500)
    try:
        duraq.ok("metrics")
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_errors_of_the_users_never_get_there(duraq, queue):
    """Payloads and messages, whatever is in them, appear nowhere in the text."""
    queue.enqueue('evil"} 1\n')
    queue.mark_failed(queue.dequeue(), 'x"} 2\nduraq_evil_total 1\n', dead=True)
    text = duraq.ok("metrics")
    assert "evil" not in text
    assert of(samples(text), "duraq_dead_total") == 1


def test_a_registry_of_the_programs_own(busy, root):
    """A collector in a registry looks anew each time that it is asked."""
    registry = CollectorRegistry()
    with Inspector(root) as inspector:
        registry.register(StorageCollector(inspector))
        assert registry.get_sample_value("duraq_enqueued_total", {"queue": "jobs"}) == 7
        busy.enqueue(1)
        assert registry.get_sample_value("duraq_enqueued_total", {"queue": "jobs"}) == 8


def test_without_the_extra(root, queue):
    """Where prometheus-client is missing the command names the extra that brings it."""
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from duraq.cli import main; sys.argv[0] = 'duraq'; main()"
    )
    command = [sys.executable, "-c", program, "-C", str(root), "metrics"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "duraq: prometheus-client is not installed (pip install 'duraq[metrics]')\n"


# -- the file ----------------------------------------------------------------------------------------------


def test_a_textfile(duraq, busy, tmp_path):
    """The file has what would have been printed, ends in a newline, and may be read by anybody."""
    file = tmp_path / "duraq.prom"
    before = os.umask(0o077)
    try:
        assert duraq.ok("metrics", "--textfile", str(file)) == ""
    finally:
        os.umask(before)
    text = file.read_text()
    assert text.endswith("\n")
    assert samples(text).keys() == samples(duraq.ok("metrics")).keys()
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert sorted(tmp_path.glob("duraq.prom*")) == [file]


def test_a_textfile_is_never_seen_half(duraq, busy, tmp_path):
    """Whoever opens the file while it is replaced, again and again, reads a whole one."""
    file = tmp_path / "duraq.prom"
    duraq.ok("metrics", "--textfile", str(file))
    seen, done = set(), threading.Event()

    def watch():
        while not done.is_set():
            seen.add(file.read_text())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(30):
            busy.enqueue_many(range(number))
            duraq.ok("metrics", "--textfile", str(file))
    finally:
        done.set()
        watcher.join()
    assert all(text.splitlines()[-1].startswith("duraq_build_info{") for text in seen)


def test_a_file_that_cannot_be_written(duraq, busy, tmp_path):
    """Where the file cannot be replaced it stays as it was, and nothing is left beside it."""
    file = tmp_path / "duraq.prom"
    file.mkdir()
    (file / "something").touch()
    result = duraq("metrics", "--textfile", str(file))
    assert result.exit_code == Code.USAGE
    assert sorted(tmp_path.glob("duraq.prom*")) == [file]


@pytest.mark.parametrize("planted", ["link", "dangling link", "fifo"])
def test_what_is_no_file_is_not_replaced(duraq, busy, tmp_path, planted):
    """A link, a device or a FIFO in place of the file is left alone: /dev/stdout must not get lost."""
    file, elsewhere = tmp_path / "duraq.prom", tmp_path / "elsewhere"
    if planted == "link":
        elsewhere.write_text("precious")
    if planted == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to(elsewhere)
    before = file.lstat()
    assert duraq("metrics", "--textfile", str(file)).exit_code == Code.USAGE
    assert file.lstat() == before
    assert not elsewhere.exists() or elsewhere.read_text() == "precious"


@pytest.mark.parametrize("planted", ["link", "fifo", "hard link"])
def test_what_was_planted_is_not_written_to(duraq, busy, tmp_path, planted):
    """What somebody has put in the way of the temporary file is removed, and not written through."""
    temporary, elsewhere = tmp_path / f"duraq.prom.{os.getpid()}", tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    if planted == "link":
        temporary.symlink_to(elsewhere)
    elif planted == "fifo":
        os.mkfifo(temporary)
    else:
        temporary.hardlink_to(elsewhere)
    duraq.ok("metrics", "--textfile", str(tmp_path / "duraq.prom"))
    assert elsewhere.read_text() == "precious"
    assert "duraq_entries" in (tmp_path / "duraq.prom").read_text()
    assert not temporary.exists()


def test_again_and_again(duraq, queue, tmp_path):
    """With --loop the file is replaced again and again, until it is told to stop."""
    queue.enqueue(1)
    file = tmp_path / "duraq.prom"
    assert duraq("metrics", "--loop", "1s").exit_code == Code.USAGE
    assert duraq("metrics", "--loop", "10ms", "--textfile", str(file)).exit_code == Code.USAGE
    process = duraq.start("metrics", "--loop", "1s", "--textfile", str(file))
    while not file.exists():
        assert process.poll() is None
        time.sleep(0.01)
    first = file.stat().st_ino
    while file.stat().st_ino == first:
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    assert process.wait() == Code.TERMINATED
