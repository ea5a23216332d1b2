"""The disk in memory: what survives a power cut, what a failed call does, what a crash leaves."""

import errno
import subprocess
import sys
from random import Random

import pytest

from duraq.testing import Crashed, MemoryFileSystem, WouldDeadlock

SEEDS = range(300)


@pytest.fixture
def fs():
    return MemoryFileSystem()


@pytest.fixture
def root(fs):
    return fs.open_root("/root", create=True)


@pytest.fixture
def fd(fs, root):
    """A file whose name is durable, with eight durable bytes."""
    fd = fs.open_file(root, "file", create=True)
    fs.pwrite(fd, b"--------", 0)
    fs.datasync(fd)
    fs.sync(root)
    return fd


def worst(fs):
    """The files that are left when nothing survives but what is durable."""
    return fs.surviving(nothing=True).files()


def best(fs):
    """The files that are left when everything survives."""
    return fs.surviving(everything=True).files()


def outcomes(fs, path="root/file"):
    """Every content that some seed leaves in the file; None where it is missing."""
    return {fs.power_cut(Random(seed)).files().get(path) for seed in SEEDS}


def test_importing_duraq_imports_no_stand_ins():
    """The library itself never loads its test doubles."""
    program = "import duraq, sys; sys.exit(any(name.startswith('duraq.testing') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# What a power cut leaves


def test_bytes_are_durable_after_a_sync_and_not_before(fs, root, fd):
    """datasync and sync make a file's bytes, length included, survive everything."""
    for sync, data in ((fs.datasync, b"longer than before"), (fs.sync, b"short")):
        before = worst(fs)
        fs.truncate(fd, 0)
        fs.pwrite(fd, data, 0)
        assert worst(fs) == before
        assert best(fs) == {"root/file": data}
        sync(fd)
        assert worst(fs) == best(fs) == {"root/file": data}
        assert outcomes(fs) == {data}


def test_a_new_name_is_durable_after_its_directory_is_synced(fs, root):
    """A file that was synced under a name that was not may be gone."""
    fd = fs.open_file(root, "file", create=True)
    fs.pwrite(fd, b"bytes", 0)
    fs.datasync(fd)
    assert worst(fs) == {}
    assert outcomes(fs) == {None, b"bytes"}
    fs.sync(root)
    assert outcomes(fs) == {b"bytes"}


def test_a_durable_name_says_nothing_of_the_bytes(fs, root):
    """A file whose directory was synced and it itself not may be there and empty."""
    fd = fs.open_file(root, "file", create=True)
    fs.pwrite(fd, b"bytes", 0)
    fs.sync(root)
    assert worst(fs) == {"root/file": b""}
    assert {b"", b"bytes"} < outcomes(fs)


def test_a_new_directory_is_lost_with_all_in_it(fs, root):
    """What was synced inside a directory is gone if the directory's own name was not synced."""
    inner = fs.open_dir(root, "inner", create=True)
    fs.datasync(fs.open_file(inner, "file", create=True))
    fs.sync(inner)
    assert worst(fs) == {}
    fs.sync(root)
    assert worst(fs) == {"root/inner/file": b""}


def test_a_root_is_durable_once_it_is_made(fs):
    """open_root(create=True) syncs the names that it makes, which nobody else could."""
    root = fs.open_root("/some/where/root", create=True)
    fs.open_file(root, "file", create=True)
    fs.sync(root)
    assert worst(fs) == {"some/where/root/file": b""}


def test_a_rename_happened_or_did_not(fs, root, fd):
    """Whatever the seed, a replaced file is the old one or the new one, and never missing."""
    new = fs.open_file(root, "file.tmp", create=True)
    fs.pwrite(new, b"new", 0)
    fs.datasync(new)
    fs.rename(root, "file.tmp", "file")
    assert worst(fs) == {"root/file": b"--------"}
    left = [fs.power_cut(Random(seed)).files() for seed in SEEDS]
    for files in (
        {"root/file": b"--------"},
        {"root/file": b"--------", "root/file.tmp": b"new"},
        {"root/file": b"new"},
    ):
        assert files in left
        left = [each for each in left if each != files]
    assert left == []


def test_a_file_renamed_before_its_bytes_are_synced_may_be_empty(fs, root, fd):
    """The classic mistake is modelled: rename and directory sync without a data sync lose the content."""
    fs.pwrite(fs.open_file(root, "file.tmp", create=True), b"new", 0)
    fs.rename(root, "file.tmp", "file")
    fs.sync(root)
    assert worst(fs) == {"root/file": b""}


def test_an_unlinked_file_may_come_back(fs, root, fd):
    """A removed name is gone for certain only after the directory is synced."""
    fs.unlink(root, "file")
    assert fs.files() == {}
    assert outcomes(fs) == {None, b"--------"}
    fs.sync(root)
    assert outcomes(fs) == {None}


def test_names_are_lost_in_any_combination_but_each_in_order(fs, root):
    """Of two new files either alone may survive; of one name's history only a beginning does."""
    first = fs.open_file(root, "a", create=True)
    fs.open_file(root, "b", create=True)
    fs.unlink(root, "a")
    second = fs.open_file(root, "a", create=True)
    assert fs.identity(first) != fs.identity(second)
    left = set()
    for seed in SEEDS:
        after = fs.power_cut(Random(seed))
        there = after.open_root("/root")
        left.add((after.exists(there, "b"), after.exists(there, "a") and _identity(after, there, "a")))
    wanted = {False, fs.identity(first), fs.identity(second)}
    assert left == {(b, a) for b in (False, True) for a in wanted}


def _identity(fs, directory, name):
    return fs.identity(fs.open_file(directory, name))


def test_writes_that_were_not_synced_survive_in_any_combination(fs, fd):
    """A later write may reach the disk and an earlier one not."""
    fs.pwrite(fd, b"a", 0)
    fs.pwrite(fd, b"b", 4)
    assert outcomes(fs) == {b"--------", b"a-------", b"----b---", b"a---b---"}


def test_of_two_writes_to_a_place_the_earlier_never_wins_over_a_survivor(fs, fd):
    """Where both survive, the later one is seen; where one does, that one."""
    fs.pwrite(fd, b"a", 0)
    fs.pwrite(fd, b"b", 0)
    assert outcomes(fs) == {b"--------", b"a-------", b"b-------"}


def test_a_write_may_be_torn_at_any_byte(fs, fd):
    """Some seed leaves every beginning, and every end, of a write."""
    fs.pwrite(fd, b"12345678", 0)
    left = {fs.power_cut(Random(seed)).files()["root/file"] for seed in range(3000)}
    assert {b"12345678"[:n].ljust(8, b"-") for n in range(9)} <= left
    assert {b"12345678"[n:].rjust(8, b"-") for n in range(9)} <= left


def test_a_write_may_be_torn_between_sectors(fs, root):
    """A later sector may reach the disk and an earlier one not; sectors count from the start of the file."""
    fd = fs.open_file(root, "file", create=True)
    fs.pwrite(fd, b"-" * 2048, 0)
    fs.sync(fd)
    fs.sync(root)
    fs.pwrite(fd, b"x" * 1024, 500)
    parts = [(500, 512), (512, 1024), (1024, 1524)]
    for chosen in ([parts[0], parts[2]], [parts[1]], [parts[2]]):
        expected = bytearray(b"-" * 2048)
        for start, end in chosen:
            expected[start:end] = b"x" * (end - start)
        assert bytes(expected) in outcomes(fs)


def test_starting_to_write_makes_nothing_durable(fs, fd):
    """After the hint a power cut still loses the bytes, or keeps them."""
    fs.pwrite(fd, b"x", 0)
    fs.start_writing(fd, 0, 1)
    assert outcomes(fs) == {b"--------", b"x-------"}


def test_growth_may_survive_without_its_bytes(fs, fd):
    """A file that grew may be longer and hold zeros where the bytes should be."""
    fs.pwrite(fd, b"12345678", 8)
    left = outcomes(fs)
    assert b"--------" in left
    assert b"--------12345678" in left
    assert b"--------" + bytes(8) in left
    assert b"--------" + bytes(3) in left
    assert any(each.endswith(b"8") and b"\0" in each for each in left)


def test_a_truncation_may_be_lost(fs, fd):
    """A file that was cut and not synced may still be as long as before."""
    fs.truncate(fd, 3)
    assert outcomes(fs) == {b"--------", b"---"}


def test_the_same_seed_leaves_the_same_disk(fs, root, fd):
    """A power cut depends on its seed alone, so that a failure can be played again."""
    for name in "abcdef":
        other = fs.open_file(root, name, create=True)
        for at in range(0, 4096, 700):
            fs.pwrite(other, bytes([at % 251]) * 900, at)
    for seed in SEEDS:
        assert fs.power_cut(Random(seed)).files() == fs.power_cut(Random(seed)).files()


def test_a_power_cut_leaves_the_running_disk_alone(fs, root, fd):
    """The disk that is returned is another one: nothing done to it reaches the first, nor the other way."""
    fs.pwrite(fd, b"x", 0)
    after = fs.power_cut(Random(1))
    there = after.open_root("/root")
    after.pwrite(after.open_file(there, "file"), b"after", 0)
    after.open_file(there, "new", create=True)
    fs.pwrite(fd, b"y", 1)
    assert fs.files() == {"root/file": b"xy------"}
    assert after.files() == {"root/file": b"after---", "root/new": b""}


def test_after_a_power_cut_nothing_is_open_locked_or_pending(fs, root, fd):
    """The next boot starts with a clean table of descriptors, and what it reads is durable."""
    fs.lock(fd)
    fs.pwrite(fd, b"x", 0)
    after = fs.surviving(everything=True)
    assert after.opened == after.locked == []
    assert worst(after) == {"root/file": b"x-------"}
    assert after.try_lock(after.open_file(after.open_root("/root"), "file"))


def test_a_file_is_the_same_after_a_power_cut(fs, root, fd):
    """Identities survive, and a file made afterwards gets one that no earlier file had."""
    after = fs.surviving(nothing=True)
    there = after.open_root("/root")
    assert after.identity(after.open_file(there, "file")) == fs.identity(fd)
    assert after.identity(after.open_file(there, "new", create=True)) > fs.identity(fd)


def test_survival_is_of_nothing_or_of_everything(fs):
    """surviving wants one of its two extremes."""
    with pytest.raises(ValueError, match="either"):
        fs.surviving()
    with pytest.raises(ValueError, match="either"):
        fs.surviving(nothing=True, everything=True)


# Failed syncs


@pytest.mark.parametrize("call", ["datasync", "sync"])
def test_a_failed_sync_loses_what_it_was_to_make_durable(fs, fd, call):
    """After a failed sync later ones succeed, the cache shows the bytes, and a power cut loses them."""
    fs.pwrite(fd, b"lost", 0)
    fs.fail(call, errno.EIO)
    with pytest.raises(OSError, match="Input/output error") as failed:
        getattr(fs, call)(fd)
    assert failed.value.errno == errno.EIO
    fs.datasync(fd)
    fs.sync(fd)
    assert fs.pread(fd, 8, 0) == b"lost----"
    assert worst(fs) == {"root/file": b"--------"}


def test_what_a_failed_sync_lost_may_have_reached_the_disk(fs, fd):
    """Nobody can tell after a failed sync: the bytes may be there after a power cut, or not."""
    fs.pwrite(fd, b"?", 0)
    fs.fail("datasync")
    with pytest.raises(OSError, match="error"):
        fs.datasync(fd)
    fs.pwrite(fd, b"!", 1)
    fs.datasync(fd)
    assert outcomes(fs) == {b"?!------", b"-!------"}
    assert best(fs) == {"root/file": b"?!------"}


def test_bytes_written_again_after_a_failed_sync_become_durable(fs, fd):
    """A lost write is made good by writing it again and syncing that."""
    fs.pwrite(fd, b"data", 0)
    fs.fail("datasync")
    with pytest.raises(OSError, match="error"):
        fs.datasync(fd)
    fs.pwrite(fd, b"data", 0)
    fs.datasync(fd)
    assert worst(fs) == {"root/file": b"data----"}
    assert outcomes(fs) == {b"data----"}


def test_a_failed_sync_is_reported_once_to_those_who_were_there(fs, root, fd):
    """Descriptors opened before the failure report it once, in every process; those opened after never do."""
    other = fs.process()
    before = other.open_file(other.open_root("/root"), "file")
    fs.pwrite(fd, b"lost", 0)
    fs.fail("datasync", errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        fs.datasync(fd)
    after = other.open_file(other.open_root("/root"), "file")
    other.datasync(after)
    other.pwrite(before, b"kept", 4)
    with pytest.raises(OSError, match="No space") as reported:
        other.sync(before)
    assert reported.value.errno == errno.ENOSPC
    other.sync(before)
    fs.datasync(fd)
    assert worst(fs) == {"root/file": b"----kept"}


def test_dropped_caches_show_the_loss(fs, fd):
    """Once the cache is dropped, lost bytes read as what was there before, or as zeros; others stay."""
    fs.pwrite(fd, b"lost", 0)
    fs.pwrite(fd, b"lost", 8)
    fs.fail("datasync")
    with pytest.raises(OSError, match="error"):
        fs.datasync(fd)
    fs.pwrite(fd, b"dirty", 12)
    fs.drop_caches()
    assert fs.pread(fd, 99, 0) == b"--------" + bytes(4) + b"dirty"


def test_a_failed_sync_of_a_directory_loses_names(fs, root, fd):
    """Names too are lost by a failed sync, until they are made again."""
    fs.rename(root, "file", "new")
    fs.fail("sync", name=".")
    with pytest.raises(OSError, match="error"):
        fs.sync(root)
    fs.sync(root)
    assert worst(fs) == {"root/file": b"--------"}
    fs.rename(root, "new", "newer")
    fs.sync(root)
    assert worst(fs) == {"root/newer": b"--------"}


# Injected failures


@pytest.mark.parametrize(
    "call", ["pread", "pwrite", "size", "truncate", "lock", "unlock", "try_lock", "share_lock"]
)
def test_any_call_on_a_file_can_fail(fs, fd, call):
    """A fault raises its error once, and the next call succeeds."""
    arguments = {"pread": (1, 0), "pwrite": (b"x", 0), "truncate": (1,)}.get(call, ())
    fault = fs.fail(call, errno.EDQUOT)
    with pytest.raises(OSError, match="quota") as failed:
        getattr(fs, call)(fd, *arguments)
    assert failed.value.errno == errno.EDQUOT
    assert fs.files() == {"root/file": b"--------"}
    getattr(fs, call)(fd, *arguments)
    assert fault.hits == 1


@pytest.mark.parametrize("call", ["open_file", "open_dir", "unlink", "exists", "rename"])
def test_any_call_on_a_name_can_fail(fs, root, fd, call):
    """A fault on a name raises the subclass that the error has, and changes nothing."""
    arguments = ("new",) if call == "rename" else ()
    options = {"create": True} if call == "open_dir" else {}
    name = "directory" if call == "open_dir" else "file"
    fs.fail(call, errno.EACCES)
    with pytest.raises(PermissionError):
        getattr(fs, call)(root, name, *arguments, **options)
    assert fs.names(root) == ["file"]
    getattr(fs, call)(root, name, *arguments, **options)


def test_the_rest_can_fail_too(fs, root, fd):
    """Opening a root, listing, asking for an identity and closing can fail; what was closed is closed."""
    for call in ("open_root", "names", "identity", "close"):
        fs.fail(call, errno.EIO)
    with pytest.raises(OSError, match="error"):
        fs.open_root("/root")
    with pytest.raises(OSError, match="error"):
        fs.names(root)
    with pytest.raises(OSError, match="error"):
        fs.identity(fd)
    with pytest.raises(OSError, match="error"):
        fs.close(fd)
    assert fs.opened == ["."]


def test_a_fault_waits_for_its_turn_and_its_file(fs, root, fd):
    """when counts the calls on files that the pattern names, and times how many fail from there on."""
    other = fs.open_file(fs.open_dir(root, "inner", create=True), "1.jsonl", create=True)
    by_name = fs.fail("pwrite", when=2, times=2, name="*.jsonl")
    by_path = fs.fail("pwrite", when=4, times=None, name="inner/*")
    for _ in range(9):
        fs.pwrite(fd, b"x", 0)
    failed = []
    for _ in range(6):
        try:
            fs.pwrite(other, b"x", 0)
            failed.append(False)
        except OSError:
            failed.append(True)
    assert failed == [False, True, True, True, True, True]
    assert (by_name.hits, by_path.hits) == (2, 3)
    fs.heal()
    fs.pwrite(other, b"x", 0)


def test_a_rename_is_matched_by_either_name(fs, root, fd):
    """A fault on a rename may name what is renamed or what it becomes."""
    fs.fail("rename", name="file")
    fs.fail("rename", when=2, name="new")
    for _ in range(2):
        with pytest.raises(OSError, match="error"):
            fs.rename(root, "file", "new")
    fs.rename(root, "file", "new")


def test_a_short_write_says_so_and_what_follows_fails(fs, fd):
    """A short write writes its beginning and returns that length; the calls after it raise."""
    fs.fail("pwrite", errno.ENOSPC, when=2, times=3, short=2)
    assert fs.pwrite(fd, b"abcd", 0) == 4
    assert fs.pwrite(fd, b"efgh", 4) == 2
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            fs.pwrite(fd, b"gh", 6)
    assert fs.pread(fd, 9, 0) == b"abcdef--"
    assert fs.pwrite(fd, b"gh", 6) == 2


def test_a_write_may_be_short_by_a_byte(fs, fd):
    """A negative short is counted from the end of the data."""
    fs.fail("pwrite", short=-1)
    assert fs.pwrite(fd, b"abcd", 0) == 3


def test_faults_are_of_one_process(fs, root, fd):
    """Another process on the same disk does not meet this one's faults."""
    fs.fail("open_file", times=None)
    other = fs.process()
    other.open_file(other.open_root("/root"), "file")


def test_a_mistyped_fault_is_refused(fs):
    """A call that does not exist, or cannot be short, is a mistake in the test."""
    with pytest.raises(ValueError, match="no such call"):
        fs.fail("fdatasync")
    with pytest.raises(ValueError, match="short"):
        fs.fail("pread", short=1)
    with pytest.raises(ValueError, match="1st"):
        fs.crash_after(0)
    with pytest.raises(ValueError, match="pwrite"):
        fs.crash_after(1, at={"pread"})


def test_a_path_is_not_a_name(fs, root):
    """A longer path where one name belongs is a mistake in the code under test."""
    for name in ("inner/file", "..", ".", ""):
        with pytest.raises(ValueError, match="one name"):
            fs.open_file(root, name, create=True)


# Crashes


def work(fs):
    """Every call that changes the disk, once, among some that do not."""
    root = fs.open_root("/root", create=True)
    directory = fs.open_dir(root, "directory", create=True)
    fd = fs.open_file(directory, "file", create=True)
    fs.lock(fd)
    fs.pwrite(fd, b"12345678", 0)
    fs.pread(fd, 8, 0)
    fs.truncate(fd, 6)
    fs.datasync(fd)
    fs.sync(directory)
    fs.rename(directory, "file", "new")
    fs.open_file(directory, "new", create=True)
    fs.unlink(directory, "new")


EVERY_CALL = [
    ("open_root", "/root", 0),
    ("open_dir", "directory", 0),
    ("open_file", "directory/file", 0),
    ("pwrite", "directory/file", 8),
    ("truncate", "directory/file", 6),
    ("datasync", "directory/file", 0),
    ("sync", "directory", 0),
    ("rename", "directory/file -> directory/new", 0),
    ("unlink", "directory/new", 0),
]


def test_calls_that_change_the_disk_are_counted_and_traced(fs):
    """calls, syncs and trace list what changes the disk; opening what exists does not."""
    work(fs)
    assert fs.trace == EVERY_CALL
    assert (fs.calls, fs.syncs) == (len(EVERY_CALL), 2)


@pytest.mark.parametrize("n", range(1, len(EVERY_CALL) + 1))
def test_a_crash_comes_before_the_call_takes_effect(n):
    """A process that crashes at its n-th call has done the calls before it, and not that one."""
    crashed, whole = MemoryFileSystem(), MemoryFileSystem()
    crashed.crash_after(n)
    with pytest.raises(Crashed, match=EVERY_CALL[n - 1][0]):
        work(crashed)
    if n < len(EVERY_CALL):
        whole.crash_after(n + 1)
        with pytest.raises(Crashed):
            work(whole)
    else:
        work(whole)
    assert crashed.trace == EVERY_CALL[:n]
    # A sync changes no file that a process sees, an empty directory is not listed: those differ elsewhere.
    same = EVERY_CALL[n - 1][0] in {"datasync", "sync", "open_root", "open_dir"}
    assert (crashed.files() == whole.files()) is same


def test_a_crash_can_be_at_chosen_calls(fs):
    """A sweep over the syncs counts only those."""
    fs.crash_after(2, at={"datasync", "sync"})
    with pytest.raises(Crashed, match="sync"):
        work(fs)
    assert fs.trace[-1] == ("sync", "directory", 0)


def test_a_crash_can_tear_a_write(fs, fd):
    """The first half of the write that a process dies in is seen by the next process."""
    fs.crash_after(1, tear=True)
    with pytest.raises(Crashed):
        fs.pwrite(fd, b"1234", 0)
    assert fs.files() == {"root/file": b"12------"}


def test_a_crashed_process_does_nothing_more(fs, root, fd):
    """After a crash every call raises Crashed, even one that unlocks, and none changes anything."""
    fs.crash_after(1, tear=True)
    with pytest.raises(Crashed):
        fs.unlink(root, "file")
    fs.close(fd)  # nobody asks whether this fails
    for call in (
        lambda: fs.unlock(fd),
        lambda: fs.pwrite(fd, b"x", 0),
        lambda: fs.names(root),
        lambda: fs.open_root("/root"),
    ):
        with pytest.raises(Crashed, match="dead"):
            call()
    assert fs.files() == {"root/file": b"--------"}
    assert fs.calls == 6


def test_a_death_frees_locks_and_keeps_the_cache(fs, root, fd):
    """Like SIGKILL: the next process gets the lock and sees what was written, synced or not."""
    fs.lock(fd)
    fs.pwrite(fd, b"x", 0)
    other = fs.process()
    there = other.open_file(other.open_root("/root"), "file")
    assert not other.try_lock(there)
    fs.die()
    assert fs.opened == fs.locked == []
    assert other.try_lock(there)
    assert other.pread(there, 8, 0) == b"x-------"
    assert worst(fs) == {"root/file": b"--------"}


def test_healing_calls_off_a_crash(fs, fd):
    """A planned crash that was called off does not happen."""
    fs.crash_after(1)
    fs.heal()
    fs.pwrite(fd, b"x", 0)


# Processes


def test_a_descriptor_means_nothing_to_another_process(fs, fd):
    """Using another process's descriptor fails."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        fs.process().pread(fd, 1, 0)


@pytest.mark.parametrize("wait", ["lock", "share_lock"])
def test_waiting_for_a_lock_is_an_error_in_the_test(fs, fd, wait):
    """A lock that another holds cannot be waited for by the only thread there is."""
    other = fs.process()
    other.lock(other.open_file(other.open_root("/root"), "file"))
    with pytest.raises(WouldDeadlock, match=r"lock\(file\)"):
        getattr(fs, wait)(fd)


def test_what_is_open_and_locked_is_told(fs, root, fd):
    """opened and locked list this process's own, so that a test can find leaks."""
    other = fs.process()
    other.open_root("/root")
    fs.lock(fd)
    assert fs.opened == [".", "file"]
    assert fs.locked == ["file"]
    fs.close(fd)
    fs.close(root)
    assert fs.opened == fs.locked == []


# A full disk


@pytest.fixture
def small():
    """A disk of 100 bytes with a file of 60."""
    fs = MemoryFileSystem(capacity=100)
    fd = fs.open_file(fs.open_root("/", create=True), "file", create=True)
    fs.pwrite(fd, bytes(60), 0)
    return fs, fd


def test_a_full_disk_makes_a_write_short_and_then_fails_it(small):
    """What fits is written; when nothing fits the write raises ENOSPC and changes nothing."""
    fs, fd = small
    assert fs.pwrite(fd, b"x" * 50, 60) == 40
    with pytest.raises(OSError, match="No space") as full:
        fs.pwrite(fd, b"x", 100)
    assert full.value.errno == errno.ENOSPC
    assert fs.size(fd) == fs.used == 100
    assert fs.pwrite(fd, b"", 100) == 0


def test_overwriting_takes_no_space(small):
    """Bytes that own their space are overwritten on a full disk, and a write across the end gets that far."""
    fs, fd = small
    fs.capacity = 60
    assert fs.pwrite(fd, b"x" * 60, 0) == 60
    assert fs.pwrite(fd, b"x" * 20, 50) == 10


def test_space_comes_back(small):
    """Cutting or removing a file, or a larger disk, makes room; an open file keeps its space until closed."""
    fs, fd = small
    root = fs.open_root("/")
    fs.truncate(fd, 10)
    assert fs.used == 10
    fs.pwrite(fd, bytes(90), 10)
    fs.unlink(root, "file")
    assert fs.used == 100
    fs.close(fd)
    assert fs.used == 0
    fd = fs.open_file(root, "file", create=True)
    assert fs.pwrite(fd, bytes(200), 0) == 100
    fs.capacity = None
    assert fs.pwrite(fd, bytes(100), 100) == 100
    fs.close(fd)
    fs.unlink(root, "file")
    assert fs.used == 0


def test_a_replaced_file_gives_its_space_back(small):
    """A rename over a file frees what that file took."""
    fs, fd = small
    root = fs.open_root("/")
    fs.pwrite(fs.open_file(root, "new", create=True), bytes(30), 0)
    fs.close(fd)
    fs.rename(root, "new", "file")
    assert fs.used == 30


def test_a_hole_takes_space_when_it_is_written(small):
    """Extending a file takes no space; writing into the hole does, and may not fit."""
    fs, fd = small
    fs.truncate(fd, 1000)
    assert fs.used == 60
    fs.pwrite(fd, bytes(30), 500)
    assert fs.used == 90
    assert fs.pwrite(fd, bytes(40), 480) == 10
    assert fs.used == 100
    assert fs.pwrite(fd, bytes(20), 500) == 20


def test_a_power_cut_takes_and_gives_space(small):
    """The disk after a power cut is as large, and as full as the files on it, holes not counted."""
    fs, fd = small
    fs.truncate(fd, 200)
    assert fs.surviving(nothing=True).used == 0
    after = fs.surviving(everything=True)
    assert (after.used, after.capacity) == (60, 100)
    for seed in SEEDS:
        assert fs.power_cut(Random(seed)).used <= 100
