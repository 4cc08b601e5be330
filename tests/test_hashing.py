import contextlib
import hashlib
import os
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio

from program import PATIENCE_SECONDS, wait_for, wait_until
from trio_cmd.errors import (
    Busy,
    ChangedWhileRead,
    DeadlinePassed,
    NotARegularFile,
    NotFound,
    TooLarge,
    Unavailable,
)
from trio_cmd.server.deadlines import Sweeper
from trio_cmd.settings import ALGORITHMS, Comphash
from trio_cmd.work import files
from trio_cmd.work.hashing import PIECE_BYTES, Digest, Hashing, digest_file
from trio_cmd.work.limiter import LimiterStatistics, WaitingRoom
from trio_cmd.work.threads import DiskThreads

NO_BOUND = 1 << 60
SPARSE_BYTES = 32 << 30  # half a minute of work at least
IDLE = LimiterStatistics(running=0, waiting=0)


def never(done: int, total: int) -> None:
    """Check nothing."""


def at_piece(number: int, act: Callable[[], object]) -> Callable[[int, int], None]:
    """A check that acts after so many pieces have been read."""
    seen = 0

    def check(done: int, total: int) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            act()

    return check


@contextlib.contextmanager
def no_limit(command: str, seconds: float) -> Iterator[None]:
    """Keep no deadline."""
    yield


def open_positions(path: Path) -> list[int]:
    """How far each descriptor of this process that is open on a file has been read."""
    positions = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/self/fd/{fd}") == str(path):
                positions.append(int(Path(f"/proc/self/fdinfo/{fd}").read_text().split()[1]))
    return positions


def make_hashing(
    max_waiting: int = 256,
    limit: object = None,
    open_file: Callable[[bytes], int] = files.open_regular,
    **options: float,
) -> Hashing:
    settings = Comphash(**{"threads": 1, **options})  # type: ignore[arg-type]  # by name
    room = WaitingRoom(max_waiting)
    return Hashing(settings, room, limit or no_limit, DiskThreads(), open_file=open_file)  # type: ignore[arg-type]  # fakes


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file that takes long to hash, and no room."""
    path = tmp_path / "big"
    path.touch()
    os.truncate(path, SPARSE_BYTES)
    return path


@pytest.fixture
def pieces(tmp_path: Path) -> Path:
    """A file of three pieces, written a day ago and unchanged since the clock of the files last moved."""
    path = tmp_path / "pieces"
    path.write_bytes(bytes(range(256)) * (3 * PIECE_BYTES // 256))
    day_ago = time.time() - 86_400
    os.utime(path, (day_ago, day_ago))
    probe = tmp_path / "probe"

    def has_moved_on() -> bool:
        probe.write_bytes(b"")
        return probe.stat().st_ctime_ns > path.stat().st_ctime_ns

    wait_until(has_moved_on, "the clock of the file system")
    return path


class Disk:
    """A dead disk: whoever opens a file below /dead waits until it comes back."""

    def __init__(self) -> None:
        self.is_back = threading.Event()
        self.waiting = 0

    def open_regular(self, path: bytes) -> int:
        if not path.startswith(b"/dead"):
            return files.open_regular(path)
        self.waiting += 1
        assert self.is_back.wait(PATIENCE_SECONDS)
        return files.open_regular(path[len(b"/dead") :])


@pytest.fixture
async def dead_disk() -> AsyncIterator[Disk]:
    disk = Disk()
    yield disk
    disk.is_back.set()


# digest_file: in one thread


@pytest.mark.parametrize(
    "size", [0, 1, 4096, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7]
)
def test_digest_is_that_of_hashlib(size: int, tmp_path: Path) -> None:
    """A digest is compared with one from elsewhere: one wrong bit makes the tool worse than none."""
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    for algorithm in ALGORITHMS:
        expected = Digest(algorithm, hashlib.new(algorithm, data).hexdigest(), size)
        assert digest_file(os.fsencode(path), algorithm, NO_BOUND, never) == expected


@pytest.mark.parametrize(
    ("algorithm", "tool"),
    [
        pytest.param(algorithm, tool, marks=pytest.mark.needs(tool))
        for algorithm, tool in [
            ("sha1", "sha1sum"),
            ("md5", "md5sum"),
            ("sha256", "sha256sum"),
            ("sha512", "sha512sum"),
            ("blake2b", "b2sum"),
        ]
    ],
)
def test_digest_is_that_of_the_tools_of_the_host(algorithm: str, tool: str, tmp_path: Path) -> None:
    """The operator's list of good digests was made with these."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(2 * PIECE_BYTES + 1))
    done = subprocess.run([tool, path], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert digest_file(os.fsencode(path), algorithm, NO_BOUND, never).hex == done.stdout.split()[0]


def test_file_is_hashed_up_to_the_greatest_size_and_no_byte_beyond(tmp_path: Path) -> None:
    """A bound that is said in the settings holds exactly."""
    path = tmp_path / "fi le"
    path.write_bytes(b"12345")
    assert digest_file(os.fsencode(path), "sha1", 5, never).bytes == 5
    with pytest.raises(TooLarge) as caught:
        digest_file(os.fsencode(path), "sha1", 4, lambda *_: pytest.fail("nothing of it may be read"))
    assert caught.value.message == f"larger than 4 bytes: '{path}'"
    assert open_positions(path) == []


def test_unchanged_file_has_a_digest(pieces: Path) -> None:
    """To be looked at by others meanwhile is no change."""
    expected = hashlib.sha1(pieces.read_bytes()).hexdigest()
    read = at_piece(1, pieces.read_bytes)
    assert digest_file(os.fsencode(pieces), "sha1", NO_BOUND, read).hex == expected


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def append_and_take_back(path: Path) -> None:
    size = path.stat().st_size
    append(path)
    os.truncate(path, size)


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other")


def rewrite_and_set_the_time_back(path: Path) -> None:
    status = path.stat()
    rewrite(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def shrink(path: Path) -> None:
    os.truncate(path, PIECE_BYTES + 5)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def replace(path: Path) -> None:
    new = path.with_name("new")
    new.write_bytes(path.read_bytes())
    new.rename(path)


def rotate(path: Path) -> None:
    path.rename(path.with_name("pieces.1"))
    path.touch()


CHANGES = [
    append,
    append_and_take_back,
    rewrite,
    rewrite_and_set_the_time_back,
    shrink,
    empty,
    replace,
    rotate,
    Path.unlink,
]


@pytest.mark.parametrize("piece", [1, 3])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_file_that_changes_while_it_is_hashed_has_no_digest(
    change: Callable[[Path], object], piece: int, pieces: Path
) -> None:
    """A digest of half the old and half the new file matches nothing and raises a false alarm."""
    with pytest.raises(ChangedWhileRead) as caught:
        digest_file(os.fsencode(pieces), "sha256", NO_BOUND, at_piece(piece, lambda: change(pieces)))
    assert caught.value.message == f"changed while it was read: '{pieces}'; ask again"
    assert open_positions(pieces) == []


def test_file_that_grows_faster_than_it_is_read_is_given_up(pieces: Path) -> None:
    """A busy log must not keep a thread for ever."""
    reads = 0

    def grow(done: int, total: int) -> None:
        nonlocal reads
        reads += 1
        assert reads < 10, "read on and on"
        with pieces.open("ab") as file:
            file.write(bytes(PIECE_BYTES))

    with pytest.raises(ChangedWhileRead):
        digest_file(os.fsencode(pieces), "sha1", NO_BOUND, grow)
    assert reads == 4  # three pieces, and one beyond


def test_what_check_raises_ends_the_reading(pieces: Path) -> None:
    """A cancelled hash stops at the next piece and leaves no file open."""
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.extend(open_positions(pieces))
        raise InterruptedByTest

    with pytest.raises(InterruptedByTest):
        digest_file(os.fsencode(pieces), "sha1", NO_BOUND, stop)
    assert seen == [PIECE_BYTES]
    assert open_positions(pieces) == []


class InterruptedByTest(Exception):
    pass


def test_error_of_the_disk_is_told_with_the_path_as_asked(tmp_path: Path) -> None:
    """A bad sector is the host's fault, and one line; here a folder stands for the disk that fails."""
    with pytest.raises(Unavailable) as caught:
        digest_file(b"/asked", "sha1", NO_BOUND, never, lambda path: os.open(tmp_path, os.O_RDONLY))
    assert caught.value.message == "[Errno 21] Is a directory: '/asked'"
    assert open_positions(tmp_path) == []


# Hashing: many askers, few threads


async def test_digest_comes_from_a_worker_thread(tmp_path: Path) -> None:
    """A slow disk must not stop the conversation with everybody else."""
    threads: list[threading.Thread] = []

    def note_thread(path: bytes) -> int:
        threads.append(threading.current_thread())
        return files.open_regular(path)

    path = tmp_path / "file"
    path.write_bytes(b"lab\n")
    digest = await make_hashing(open_file=note_thread).digest(os.fsencode(path), "sha1", "client")
    assert digest == Digest("sha1", hashlib.sha1(b"lab\n").hexdigest(), 4)
    assert threads[0] is not threading.current_thread()


@pytest.mark.parametrize("special", ["fifo", "/dev/zero", "/proc/kmsg"])
async def test_special_file_is_refused_and_leaves_no_thread(special: str, tmp_path: Path) -> None:
    """Forty of them stopped the plain server; here the forty-first is answered like the first."""
    os.mkfifo(tmp_path / "fifo")
    path = os.path.join(os.fsencode(tmp_path), special.encode())
    hasher = make_hashing()
    with trio.fail_after(PATIENCE_SECONDS):
        for _ in range(41):
            with pytest.raises(NotARegularFile):
                await hasher.digest(path, "sha1", "client")
    assert hasher._threads.unfinished() == 0
    assert hasher.statistics() == IDLE


async def test_error_leaves_the_place_free() -> None:
    """A wrong path costs the next asker nothing."""
    hasher = make_hashing()
    for _ in range(3):
        with pytest.raises(NotFound):
            await hasher.digest(b"/nope", "sha1", "client")
    assert hasher.statistics() == IDLE


async def test_cancelled_hash_ends_within_one_piece(big: Path, nursery: trio.Nursery) -> None:
    """A client that resets its connection leaves no thread at work, however large its file."""
    hasher = make_hashing()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as asking:
            asking.start_soon(hasher.digest, os.fsencode(big), "sha1", "client")
            await wait_for(lambda: any(open_positions(big)))
            cancelled_at = open_positions(big)[0]
            began = trio.current_time()
            scope.cancel()
    assert scope.cancelled_caught
    assert hasher.statistics() == IDLE
    await wait_for(lambda: hasher._threads.unfinished() == 0)
    assert trio.current_time() - began < 1
    assert cancelled_at < SPARSE_BYTES
    assert open_positions(big) == []


async def test_deadline_ends_the_hash(big: Path, nursery: trio.Nursery) -> None:
    """No command runs longer than the settings allow, and the client is told so."""
    sweeper = Sweeper(0.05)
    nursery.start_soon(sweeper.run)
    hasher = make_hashing(seconds=0.1, limit=sweeper.limit)
    with trio.fail_after(PATIENCE_SECONDS), pytest.raises(DeadlinePassed) as caught:
        await hasher.digest(os.fsencode(big), "sha1", "client")
    assert caught.value.message == "comphash not finished in 0.1 s"
    await wait_for(lambda: hasher._threads.unfinished() == 0)
    assert hasher.statistics() == IDLE


async def test_one_too_many_waits_and_the_next_is_refused(big: Path) -> None:
    """More threads than cores make nothing faster; a queue without end answers nobody."""
    hasher = make_hashing(max_waiting=1)
    async with trio.open_nursery() as asking:
        for client in ("a", "b"):
            asking.start_soon(hasher.digest, os.fsencode(big), "sha1", client)
        await wait_for(lambda: any(open_positions(big)))
        assert hasher.statistics() == LimiterStatistics(running=1, waiting=1)
        with pytest.raises(Busy):
            await hasher.digest(os.fsencode(big), "sha1", "c")
        asking.cancel_scope.cancel()
    assert hasher.statistics() == IDLE
    await wait_for(lambda: hasher._threads.unfinished() == 0)


async def test_asker_does_not_wait_for_a_dead_disk(dead_disk: Disk, tmp_path: Path) -> None:
    """The client that leaves is let go at once; the thread ends when its disk comes back."""
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    hasher = make_hashing(open_file=dead_disk.open_regular)
    async with trio.open_nursery() as asking:
        asking.start_soon(hasher.digest, b"/dead" + os.fsencode(path), "sha1", "client")
        await wait_for(lambda: dead_disk.waiting == 1)
        asking.cancel_scope.cancel()
    assert hasher.statistics() == IDLE
    assert hasher._threads.unfinished() == 1
    dead_disk.is_back.set()
    await wait_for(lambda: hasher._threads.unfinished() == 0)
    assert open_positions(path) == []


@pytest.mark.parametrize(("threads", "cores", "expected"), [(0, 2, 2), (0, 64, 4), (0, None, 1), (7, 2, 7)])
def test_number_of_threads_follows_the_cores_unless_told(
    threads: int, cores: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default suits the host, and the settings win."""
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert make_hashing(threads=threads).max_threads == expected
