"""Small files that are in memory, read in the event loop: the same answers, and never a wait."""

import contextlib
import ctypes
import errno
import functools
import gc
import hashlib
import os
import re
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from conftest import StartProgram
from conversation import conversing
from program import PATIENCE_SECONDS, Record
from test_race import swapping
from trio_cmd.commands import Command, Surroundings
from trio_cmd.errors import BadArguments, CommandFailed
from trio_cmd.server.at_once import AT_ONCE_PER_TURN
from trio_cmd.settings import ALGORITHMS, Comphash
from trio_cmd.wire.messages import Reply
from trio_cmd.work import cached, files, logs, mounts
from trio_cmd.work.cached import MAX_CACHED_BYTES, CachedFiles
from trio_cmd.work.hashing import Digest, Hashing, digest_file
from trio_cmd.work.limiter import FairLimiter, WaitingRoom
from trio_cmd.work.logs import LogReader
from trio_cmd.work.mounts import AccessTimes, LocalMounts
from trio_cmd.work.processes import GroupReaper
from trio_cmd.work.roots import Roots
from trio_cmd.work.threads import DiskThreads

SHARED_MEMORY = "/dev/shm"
NO_BOUND = 1 << 40
SIZES = (0, 1, 4096, MAX_CACHED_BYTES - 1, MAX_CACHED_BYTES, MAX_CACHED_BYTES + 1)
NAMES = (
    *(f"of {size}" for size in SIZES),
    *("folder", "fifo", "link", "absolute", "out", "gone", "loop", "missing", "up", "inner", "..", ".", ""),
)


@contextlib.contextmanager
def no_limit(command: str, seconds: float) -> Iterator[None]:
    """Keep no deadline."""
    yield


def make_hashing(root: object, **options: Any) -> Hashing:
    settings = Comphash(threads=1, **options)
    return Hashing(settings, WaitingRoom(8), no_limit, DiskThreads()).under(settings, Roots([str(root)]))


def warm(path: Path) -> None:
    """Let reading a file, or a link, once more not write its access time, and have it in memory."""
    # Behind its other times: utime writes one of them, and the clock of the files is a coarse one.
    os.utime(path, (time.time() + 1000, path.lstat().st_mtime), follow_symlinks=False)
    if not path.is_symlink():
        path.read_bytes()


def marks_of(path: Path) -> tuple[int, ...]:
    """The size of a file; when it was read, changed and written: seconds and nanoseconds each."""
    status = path.stat()
    times = (status.st_atime_ns, status.st_ctime_ns, status.st_mtime_ns)
    return (status.st_size, *(number for time_ns in times for number in divmod(time_ns, 10**9)))


def learn(hashing: Hashing) -> Hashing:
    """Let it know the mounts."""
    hashing._cached.learn()
    return hashing


@functools.cache
def is_usual(path: Path) -> bool:
    """Whether the files here lie on a disk of this host, which keeps access times as most do."""
    command = ["stat", "-f", "-c", "%T", str(path)]  # another way than that of the program
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return name in {"ext2/ext3", "xfs", "btrfs"} and bool(os.statvfs(path).f_flag & os.ST_RELATIME)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A folder on a disk of this host, with access times as they are usual."""
    if not is_usual(tmp_path):
        pytest.skip("needs the temporary files on ext4, xfs or btrfs, mounted with relatime")
    return tmp_path


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    """Everything that a path can name, below a root and beside it."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        root = top / "root"
        (root / "folder").mkdir(parents=True)
        (top / "secret").write_text("secret")
        warm(top / "secret")
        for folder in (root, root / "folder"):
            for size in SIZES:
                (folder / f"of {size}").write_bytes(os.urandom(size))
                warm(folder / f"of {size}")
        os.mkfifo(root / "fifo")
        (root / "link").symlink_to("folder/of 1")
        (root / "absolute").symlink_to(root / "of 1")
        (root / "out").symlink_to("../secret")
        (root / "gone").symlink_to("nowhere")
        (root / "loop").symlink_to("loop")
        (root / "up").symlink_to("..")
        (root / "inner").symlink_to("folder/../folder")
        for link in ("link", "absolute", "out", "up", "inner"):
            warm(root / link)
        yield root


class Outcome(NamedTuple):
    digest: Digest | None
    error: str | None


def ignore(done: int, total: int) -> None:
    """Tell nobody how far it is."""


def the_ordinary_way(roots: Roots, path: bytes, algorithm: str) -> Outcome:
    try:
        return Outcome(digest_file(path, algorithm, NO_BOUND, ignore, roots.open_regular), None)
    except CommandFailed as error:
        return Outcome(None, error.message)


# The same answers


@given(
    parts=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4),
    algorithm=st.sampled_from(ALGORITHMS),
    is_everywhere=st.booleans(),
    is_beside=st.booleans(),
)
def test_both_ways_give_the_same_digest_and_only_the_ordinary_one_errors(
    tree: Path, parts: list[str], algorithm: str, *, is_everywhere: bool, is_beside: bool
) -> None:
    """An answer must not depend on what happens to be in memory."""
    path = os.fsencode(os.path.join(tree.parent if is_beside else tree, *parts))
    with Roots(["/" if is_everywhere else str(tree)]) as roots:
        expected = the_ordinary_way(roots, path, algorithm)
        hashing = Hashing(Comphash(), WaitingRoom(1), no_limit, look_at_once=roots.look_at_once)
        found = learn(hashing).digest_at_once(path, algorithm)
    assert found in (None, expected.digest)
    if is_usual(tree) and expected.digest is not None:
        assert (found is None) == (expected.digest.bytes > MAX_CACHED_BYTES)


def test_a_path_with_a_zero_byte_is_no_shorter_path(tree: Path) -> None:
    """What ends a name for C must not make it that of another file."""
    hashing = learn(make_hashing("/"))
    assert hashing.digest_at_once(os.fsencode(tree / "of 1") + b"\0x", "sha1") is None


def test_a_relative_path_is_taken_from_the_working_folder(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator in the folder of the server asks for its files by their names."""
    (local / "file").write_text("lab\n")
    warm(local / "file")
    monkeypatch.chdir(local)
    digest = learn(make_hashing(local)).digest_at_once(b"file", "md5")
    assert digest == Digest("md5", hashlib.md5(b"lab\n").hexdigest(), 4)


def test_what_is_hashed_at_once_is_counted(local: Path) -> None:
    """The metrics say how much was hashed, whichever way."""
    (local / "file").write_text("lab\n")
    warm(local / "file")
    hashing = learn(make_hashing(local))
    assert hashing.digest_at_once(os.fsencode(local / "file"), "sha1") is not None
    assert hashing.hashed_bytes == 4


def test_max_bytes_bounds_both_ways(local: Path) -> None:
    """A file that is too large is said to be so, also when it is small and in memory."""
    (local / "file").write_text("lab\n")
    warm(local / "file")
    path = os.fsencode(local / "file")
    assert learn(make_hashing(local, max_bytes=3)).digest_at_once(path, "sha1") is None
    assert learn(make_hashing(local, max_bytes=4)).digest_at_once(path, "sha1") is not None


def grow(path: Path) -> None:
    with path.open("a") as file:
        file.write("more")


def rewrite(path: Path) -> None:
    path.write_text("LAB\n")


def rewrite_in_secret(path: Path) -> None:
    times = path.stat()
    path.write_text("LAB\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("change", [grow, rewrite, rewrite_in_secret])
def test_a_file_that_changes_while_it_is_read_has_no_digest(
    change: Callable[[Path], None], local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the old bytes and half of the new ones are a file that never was."""
    path = local / "file"
    path.write_text("lab\n")
    warm(path)
    hashing = learn(make_hashing(local))
    read = os.preadv

    def read_and_change(*args: Any) -> int:
        count = read(*args)
        change(path)
        return count

    assert hashing.digest_at_once(os.fsencode(path), "sha1") is not None
    monkeypatch.setattr(os, "preadv", read_and_change)
    assert hashing.digest_at_once(os.fsencode(path), "sha1") is None


def test_a_file_that_is_exchanged_after_it_was_looked_at_is_still_the_one_that_is_read(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may rename files must not have another one read than was judged."""
    path = local / "file"
    path.write_text("lab\n")
    (local / "other").write_text("LAB\n")
    warm(path)
    hashing = learn(make_hashing(local))
    reopen = files.reopen

    def exchange_and_reopen(fd: int) -> int:
        path.rename(local / "moved")
        (local / "other").rename(path)
        (local / "moved").rename(local / "other")
        return reopen(fd)

    monkeypatch.setattr(cached, "reopen", exchange_and_reopen)
    digest = hashing.digest_at_once(os.fsencode(path), "sha1")
    assert digest in (None, Digest("sha1", hashlib.sha1(b"lab\n").hexdigest(), 4))


# Never a wait


def test_a_file_that_is_not_in_memory_is_left_to_a_thread(local: Path) -> None:
    """The event loop never waits for a disk."""
    path = local / "file"
    path.write_bytes(bytes(8 * 4096))
    warm(path)
    hashing = learn(make_hashing(local))
    assert hashing.digest_at_once(os.fsencode(path), "sha1") is not None
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    assert hashing.digest_at_once(os.fsencode(path), "sha1") is None
    path.read_bytes()
    assert hashing.digest_at_once(os.fsencode(path), "sha1") is not None


def test_a_file_whose_access_time_is_a_day_old_is_left_to_a_thread(local: Path) -> None:
    """To write a time is to wait for the journal of the disk, which may be dead."""
    path = local / "file"
    path.write_text("lab\n")
    warm(path)
    marks, read = marks_of(path), path.stat().st_atime
    assert not cached._is_touched(marks, AccessTimes.RELATIVE, read + 80_000)
    assert cached._is_touched(marks, AccessTimes.RELATIVE, read + 90_000)


def test_a_file_written_since_it_was_last_read_is_left_to_a_thread_once(local: Path) -> None:
    """The first to read it writes its access time; from then on nobody need wait."""
    path = local / "file"
    path.write_text("lab\n")
    os.utime(path, (time.time() - 50, time.time()))
    hashing = learn(make_hashing(local))
    assert hashing.digest_at_once(os.fsencode(path), "sha1") is None


def test_a_link_whose_access_time_would_be_written_is_left_to_a_thread(local: Path) -> None:
    """To find a file is to wait as well, when not all that is on its way is in memory."""
    (local / "file").write_text("lab\n")
    warm(local / "file")
    (local / "link").symlink_to("file")
    os.utime(local / "link", (1, 1), follow_symlinks=False)
    hashing = learn(make_hashing(local))
    assert hashing.digest_at_once(os.fsencode(local / "link"), "sha1") is None
    warm(local / "link")
    assert hashing.digest_at_once(os.fsencode(local / "link"), "sha1") is not None


@pytest.mark.parametrize("kind", ["fifo", "socket", "folder"])
def test_nothing_but_a_regular_file_is_opened(
    kind: str, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a FIFO lets a writer go on, who then writes to nobody."""
    path = local / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mknod(path, stat.S_IFSOCK | 0o600)
    opened: list[int] = []
    monkeypatch.setattr(cached, "reopen", opened.append)
    assert learn(make_hashing(local)).digest_at_once(os.fsencode(path), "sha1") is None
    assert opened == []


@pytest.mark.parametrize(
    ("access_times", "is_touched"),
    [(AccessTimes.NEVER, False), (AccessTimes.RELATIVE, False), (AccessTimes.ALWAYS, True)],
)
def test_when_an_access_time_is_written(
    tmp_path: Path, access_times: AccessTimes, *, is_touched: bool
) -> None:
    """Mounts that keep every access time write one at each read."""
    (tmp_path / "file").write_text("lab\n")
    warm(tmp_path / "file")
    assert cached._is_touched(marks_of(tmp_path / "file"), access_times, time.time()) is is_touched


@pytest.mark.parametrize(
    ("read", "is_touched"),
    [((5, 0), True), ((6, 10), True), ((7, 1), True), ((7, 2), True), ((7, 3), False), ((8, 0), False)],
)
@pytest.mark.parametrize("turn", [1, -1])
def test_a_file_is_unread_until_it_was_read_after_its_last_change(
    read: tuple[int, int], turn: int, *, is_touched: bool
) -> None:
    """The kernel writes the access time of a file that was read no later than changed or written."""
    older, newer = ((6, 9), (7, 2))[::turn]
    marks = (4, *read, *older, *newer)
    assert cached._is_touched(marks, AccessTimes.RELATIVE, 10.0) is is_touched


def test_what_is_not_on_a_disk_of_this_host_is_left_to_a_thread() -> None:
    """A network file system that has died must not stop the server for all."""
    hashing = learn(make_hashing("/"))
    with tempfile.NamedTemporaryFile(dir=SHARED_MEMORY) as file:
        file.write(b"lab\n")
        file.flush()
        assert hashing.digest_at_once(os.fsencode(file.name), "sha1") is None
    assert hashing.digest_at_once(b"/proc/version", "sha1") is None
    assert hashing.digest_at_once(b"/dev/null", "sha1") is None


def test_nothing_is_read_at_once_before_the_mounts_are_known(local: Path) -> None:
    """Nobody knows yet what could hang."""
    (local / "file").write_text("lab\n")
    warm(local / "file")
    hashing = make_hashing(local)
    path = os.fsencode(local / "file")
    assert hashing.digest_at_once(path, "sha1") is None
    assert learn(hashing).digest_at_once(path, "sha1") is not None


async def test_a_hash_in_a_thread_learns_the_mounts(local: Path) -> None:
    """The first question pays for those that follow."""
    (local / "file").write_text("lab\n")
    warm(local / "file")
    hashing = make_hashing(local)
    path = os.fsencode(local / "file")
    first = await hashing.digest(path, "sha1", "client")
    assert hashing.digest_at_once(path, "sha1") == first


def test_without_places_to_look_nothing_is_found_at_once(local: Path) -> None:
    """Whoever hashes without roots does so in threads."""
    (local / "file").write_text("lab\n")
    warm(local / "file")
    hashing = learn(Hashing(Comphash(), WaitingRoom(1), no_limit))
    assert hashing.digest_at_once(os.fsencode(local / "file"), "sha1") is None


async def test_while_a_thread_left_behind_may_hang_nothing_is_hashed_at_once(local: Path) -> None:
    """What hangs decides what is unavailable, and only the ordinary way asks it."""
    (local / "file").write_text("lab\n")
    warm(local / "file")
    hashing = learn(make_hashing(local))
    path = os.fsencode(local / "file")
    assert hashing.digest_at_once(path, "sha1") is not None
    go_on = threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hashing._threads.run, path, go_on.wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert hashing.digest_at_once(path, "sha1") is None
    go_on.set()
    while hashing._threads.unfinished():
        await trio.sleep(0.001)
    assert hashing.digest_at_once(path, "sha1") is not None


# Hosts that cannot


SYSTEM_CALLS = {  # by the machine: openat2, statx, preadv2
    "x86_64": (437, 332, 327),
    "aarch64": (437, 291, 286),
}


def forbid_in_this_thread(number: int, answer: int) -> None:
    """Let a filter answer a system call with an error, for the thread that calls this."""
    code = [
        (0x20, 0, 0, 0),
        (0x15, 0, 1, number),
        (0x06, 0, 0, 0x00050000 | answer),
        (0x06, 0, 0, 0x7FFF0000),
    ]
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))

    class Filter(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    program = Filter(len(code), ctypes.addressof(filters))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0  # PR_SET_SECCOMP


@pytest.mark.parametrize("call", [0, 1, 2], ids=["openat2", "statx", "preadv2"])
@pytest.mark.parametrize("answer", [errno.ENOSYS, errno.EPERM, errno.EINVAL])
def test_a_host_that_does_not_know_a_call_or_forbids_it_is_asked_once(
    local: Path, call: int, answer: int
) -> None:
    """Old kernels and the filters of containers cost one try, and no answer."""
    numbers = SYSTEM_CALLS.get(os.uname().machine)
    if numbers is None:
        pytest.skip("needs the numbers of the system calls of this machine")
    (local / "file").write_text("lab\n")
    warm(local / "file")
    hashing = learn(make_hashing(local))
    found: list[object] = []

    def ask() -> None:
        forbid_in_this_thread(numbers[call], answer)
        found.append(hashing.digest_at_once(os.fsencode(local / "file"), "sha1"))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found == [None]
    hashing._cached.learn()
    assert hashing.digest_at_once(os.fsencode(local / "file"), "sha1") is None


def test_a_file_system_that_only_reads_with_waiting_is_asked_once(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of such a disk the files are hashed in threads, those of others still at once."""
    monkeypatch.setattr(mounts, "_LOCAL", frozenset({b"tmpfs"}))
    hashing = learn(make_hashing("/"))
    with tempfile.NamedTemporaryFile(dir=SHARED_MEMORY) as file:
        warm(Path(file.name))
        known = len(hashing._cached._mounts._table)
        assert hashing.digest_at_once(os.fsencode(file.name), "sha1") is None
    assert not hashing._cached.is_off
    assert len(hashing._cached._mounts._table) == known - 1


@pytest.mark.parametrize("missing", ["statx", "RWF_NOWAIT"])
def test_an_old_library_hashes_in_threads(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on a Linux of today the ordinary way does all."""
    if missing == "statx":
        monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: object())
    else:
        monkeypatch.setattr(cached, "_NO_WAIT", 0)
    old = CachedFiles()
    assert old.is_off
    old.learn()
    assert old.read(lambda path: 1 // 0, b"/", NO_BOUND) is None


def test_without_a_table_of_mounts_nothing_is_local(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container without /proc is served as well."""
    monkeypatch.setattr(mounts, "_TABLE", str(local / "no table"))
    (local / "file").write_text("lab\n")
    assert learn(make_hashing(local)).digest_at_once(os.fsencode(local / "file"), "sha1") is None


def test_what_is_held_is_given_back(local: Path) -> None:
    """A server that reads without waiting leaves no descriptor behind, however often it learns."""
    (local / "file").write_text("lab\n")
    before = os.listdir("/proc/self/fd")
    reader = CachedFiles()
    for _ in range(3):
        reader.learn()
        file = reader.open(lambda path: os.open(path, os.O_PATH), os.fsencode(local / "file"))
        assert file is not None
        os.close(file.fd)
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1  # the table of mounts
    del reader
    gc.collect()
    assert os.listdir("/proc/self/fd") == before


def test_a_file_that_may_not_be_opened_is_left_to_a_thread(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ordinary way says why."""
    (local / "file").write_text("lab\n")
    warm(local / "file")
    hashing = learn(make_hashing(local))

    def refuse(fd: int) -> int:
        raise PermissionError(errno.EPERM, "of this file alone")

    monkeypatch.setattr(cached, "reopen", refuse)
    assert hashing.digest_at_once(os.fsencode(local / "file"), "sha1") is None
    assert not hashing._cached.is_off


# The mounts


def test_the_table_of_mounts_tells_what_is_local() -> None:
    """What cannot hang is named; everything else may."""
    table = (
        b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n"
        b"28 27 0:25 / /mnt ro,nosuid,noatime shared:1 master:2 - xfs /dev/vdb ro\n"
        b"29 27 0:26 / /a\\040b rw - btrfs /dev/vdc rw\n"
        b"30 27 0:27 / /net rw,noatime - nfs4 host:/x rw\n"
        b"31 27 0:28 / /dev rw,relatime - devtmpfs devtmpfs rw\n"
        b"32 27 0:29 / /over rw,relatime - overlay overlay rw\n"
        b"33 27 0:30 / /fuse rw,relatime - fuse.ext4 /dev/vdd rw\n"
    )
    assert dict(mounts._parse(table)) == {
        27: AccessTimes.RELATIVE,
        28: AccessTimes.NEVER,
        29: AccessTimes.ALWAYS,
    }


# Asks about a mount before and after another comes, in a table of mounts of its own.
MOUNTING = """
import subprocess, sys
from trio_cmd.work.mounts import LocalMounts
numbers = [int(line.split()[0]) for line in open("/proc/self/mountinfo")]
local = LocalMounts()
def known():
    return any(local.find(number) for number in numbers)
print(known())
local.learn()
print(known())
subprocess.run(["mount", "-t", "tmpfs", "none", sys.argv[1]], check=True)
print(known(), known())
local.learn()
print(known())
"""


@pytest.mark.needs("unshare")
def test_when_a_mount_comes_or_goes_nothing_is_local_until_the_table_is_read(local: Path) -> None:
    """The number of a local mount that is gone may be that of one that hangs."""
    own_table = ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-m"]
    if subprocess.run([*own_table, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs to mount")
    command = [*own_table, sys.executable, "-c", MOUNTING, str(local)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stdout.split() == ["False", "True", "False", "False", "True"], run.stderr


def test_the_table_is_read_once_as_long_as_nothing_changes() -> None:
    """A thousand hashes of large files do not read it a thousand times."""
    local = LocalMounts()
    local.learn()
    table = local._table
    local.learn()
    assert local._table is table


# Races


@pytest.mark.parametrize("link", ["absolute", "relative"])
def test_what_lies_outside_is_never_read_whatever_is_exchanged(link: str, local: Path) -> None:
    """Whoever may write below a root must not learn of files that only the server may read."""
    top = local / "root"
    for folder, text in ((top / "dir", "inside"), (local / "outside", "outside")):
        folder.mkdir(parents=True)
        (folder / "file").write_text(text)
        warm(folder / "file")
    (top / "absolute").symlink_to(local / "outside")
    (top / "relative").symlink_to("../outside")
    warm(top / link)
    hashing = learn(make_hashing(top))
    seen: set[Digest | None] = set()
    path = os.fsencode(top / "dir" / "file")
    with swapping(top, link):
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline or seen == {None}:
            seen.add(hashing.digest_at_once(path, "sha1"))
    assert seen == {None, Digest("sha1", hashlib.sha1(b"inside").hexdigest(), 6)}


# Logs


def make_reader() -> LogReader:
    return LogReader(FairLimiter(2, WaitingRoom(8)), GroupReaper(), no_limit, DiskThreads(), CachedFiles())


def log_in(folder: Path) -> bytes:
    (folder / "log").write_text("one\ntwo\n")
    return os.fsencode(folder / "log")


class Forbidden:
    """Counts who opens a log in a thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(logs, "open_log", self.open_log)

    def open_log(self, path: bytes) -> int:
        self.count += 1
        return files.open_regular(path, only_own_links=True)


async def test_a_log_is_opened_in_a_thread_only_the_first_time(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may hang is known after the first; each further question costs a thread less."""
    forbidden, reader, path = Forbidden(monkeypatch), make_reader(), log_in(local)
    with trio.fail_after(PATIENCE_SECONDS):
        answers = [await reader.newest(path, 10, "client") for _ in range(3)]
    assert [answer.lines for answer in answers] == [["one", "two"]] * 3
    assert forbidden.count == 1


@pytest.mark.parametrize("kind", ["link", "missing", "fifo", "zero", "relative"])
async def test_a_log_that_needs_a_judgement_is_opened_in_a_thread(
    kind: str, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose link it is, and why there is no such log, is judged and said in one place only."""
    monkeypatch.chdir(local)
    path = log_in(local)
    (local / "link").symlink_to("log")
    os.mkfifo(local / "fifo")
    paths = {"zero": path + b"\0", "relative": b"log"}
    forbidden, reader = Forbidden(monkeypatch), make_reader()
    with trio.fail_after(PATIENCE_SECONDS):
        await reader.newest(path, 10, "client")
        with contextlib.suppress(CommandFailed, ValueError):
            await reader.newest(paths.get(kind, os.fsencode(local / kind)), 10, "client")
    assert forbidden.count == 2


async def test_a_log_is_opened_in_a_thread_while_one_left_behind_may_hang(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hangs decides what is unavailable, and only the ordinary way asks it."""
    forbidden, reader, path = Forbidden(monkeypatch), make_reader(), log_in(local)
    with trio.fail_after(PATIENCE_SECONDS):
        await reader.newest(path, 10, "client")
        go_on = threading.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader._threads.run, path, go_on.wait)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await reader.newest(path, 10, "client")
        go_on.set()
    assert forbidden.count == 2


# In a conversation


QUESTIONS = (
    *(b"comphash %(file)b", b"comphash md5 %(file)b", b"verify sha1:%(digest)b %(file)b"),
    *(b"verify sha1:%(zeros)b %(file)b", b"comphash %(top)b/missing", b"comphash", b"verify x"),
    *(b"comphash %(top)b", b"comphash /etc/passwd", b"comphash %(large)b", b"format json\ncomphash %(file)b"),
    b"format json\nverify sha1:%(digest)b %(file)b",
)
# The program with one of the calls unknown: all is done in threads.
WITHOUT = """
import sys
from trio_cmd import cli
from trio_cmd.work import cached
cached._NO_WAIT = 0
sys.exit(cli.main())
"""


SECONDS = re.compile(rb'"seconds":[^}]*')


def without_times(record: Record) -> Record:
    changing = {"timestamp", "seconds", "port", "bytes"}  # the seconds are among the bytes
    return {name: value for name, value in record.items() if name not in changing}


def test_answers_and_records_are_those_of_the_ordinary_way(start: StartProgram, local: Path) -> None:
    """Nobody who reads the record can tell which way a file was hashed."""
    top = local / "root"
    top.mkdir()
    (top / "file").write_text("lab \x1b\n")
    (top / "large").write_bytes(bytes(MAX_CACHED_BYTES + 1))
    warm(top / "file")
    digest = hashlib.sha1(b"lab \x1b\n").hexdigest().encode()
    words = {b"file": top / "file", b"top": top, b"large": top / "large"}
    values = {name: os.fsencode(path) for name, path in words.items()}
    values |= {b"digest": digest, b"zeros": b"0" * 40}
    seen = []
    for command in ([sys.executable, "-m", "trio_cmd"], [sys.executable, "-c", WITHOUT]):
        program = start("--root", str(top), command=command)
        program.ask(b"comphash %b\n" % values[b"large"])  # the first learns the mounts
        answers = [SECONDS.sub(b"", program.ask(question % values + b"\n")) for question in QUESTIONS]
        program.stop()
        seen.append((answers, [without_times(record) for record in program.rest() if "request" in record]))
    assert seen[0] == seen[1]


async def test_a_turn_answers_only_so_many_at_once() -> None:
    """A client that asks for a thousand files lets a ping of somebody else in between."""
    asked: list[bytes] = []

    def at_once(argument: bytes, surroundings: Surroundings) -> Reply:
        asked.append(argument)
        return Reply((argument.decode(),))

    commands = {b"now": make_command(at_once)}
    async with conversing(more_commands=commands) as c:
        c.session._feed(b"".join(b"now %d\n" % number for number in range(20)))
        c.session._turn()
        assert len(asked) == AT_ONCE_PER_TURN
        c.session._turn()
        assert len(asked) == 2 * AT_ONCE_PER_TURN


def make_command(at_once: Callable[[bytes, Surroundings], Reply | None]) -> Command:
    async def work(argument: bytes, surroundings: Surroundings, asker: object) -> Reply:
        await trio.lowlevel.checkpoint()
        return Reply(("by work",))

    return Command("now", "now", "answer at once", work=work, at_once=at_once)


async def test_an_answer_at_once_keeps_its_place_behind_those_in_work() -> None:
    """Answers leave in the order asked, whichever way each was made."""
    command = make_command(lambda argument, surroundings: Reply(("at once",)))
    async with conversing(more_commands={b"now": command}) as c:
        assert await c.say(b"slow a\nnow\nping\n") == b""
        c.slow.finish("a")
        assert await c.heard() == b"slow a is done\nat once\npong\n"
    completed = c.sink.actions("command-completed")
    assert [record.get("shared") for record in completed] == [False, None, None]


def refuse(argument: bytes, surroundings: Surroundings) -> Reply | None:
    raise BadArguments("of no interest")


@pytest.mark.parametrize("at_once", [refuse, lambda argument, surroundings: None])
async def test_what_cannot_be_answered_at_once_is_worked_for(
    at_once: Callable[[bytes, Surroundings], Reply | None],
) -> None:
    """What goes wrong is said in one place only."""
    async with conversing(more_commands={b"now": make_command(at_once)}) as c:
        assert await c.say(b"now\n") == b"by work\n"


async def test_a_fault_costs_one_answer() -> None:
    """An error of ours must not cost a client its connection."""
    command = make_command(lambda argument, surroundings: Reply((str(1 // 0),)))
    async with conversing(more_commands={b"now": command}) as c:
        assert await c.say(b"now\nping\n") == b"An error occured : internal error\npong\n"
    assert len(c.sink.actions("handler-crashed")) == 1


async def test_nothing_is_answered_at_once_while_the_budget_is_spent() -> None:
    """Whoever asks while others do not read is told to come back, whatever is asked."""
    command = make_command(lambda argument, surroundings: Reply(("at once",)))
    async with conversing(more_commands={b"now": command}) as c:
        c.budget.bytes = c.budget.enough_bytes
        assert b"too many answers" in await c.say(b"now\n")
        c.budget.bytes = 0
