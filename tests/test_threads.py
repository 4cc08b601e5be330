"""Reads that hang: counted, told by mount point, and harmless to all others."""

import os
import threading
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from program import PATIENCE_SECONDS, wait_for
from trio_cmd.errors import Unavailable
from trio_cmd.work import threads
from trio_cmd.work.threads import DiskThreads, _find_mount_point, _mount_point

LONG = 3600.0


class Disk:
    """Reads of it wait until it comes back."""

    def __init__(self) -> None:
        self.is_back = threading.Event()
        self.waiting = 0

    def read(self) -> str:
        self.waiting += 1
        assert self.is_back.wait(PATIENCE_SECONDS)
        return "late"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A dead disk; the first folder of a path is its mount point, and a thread hangs at once."""
    monkeypatch.setattr(threads, "_mount_point", lambda path: b"/" + path.split(b"/")[1])
    monkeypatch.setattr(threads, "HUNG_SECONDS", -1.0)
    disk = Disk()
    yield disk
    disk.is_back.set()


async def leave_behind(of: DiskThreads, disk: Disk, path: bytes) -> None:
    """Ask for a file of a dead disk, and leave."""
    waiting = disk.waiting
    async with trio.open_nursery() as asking:
        asking.start_soon(of.run, path, disk.read)
        await wait_for(lambda: disk.waiting > waiting)
        asking.cancel_scope.cancel()


async def refusal(of: DiskThreads, path: bytes) -> str:
    with trio.fail_after(PATIENCE_SECONDS), pytest.raises(Unavailable) as caught:
        await of.run(path, lambda: pytest.fail("it was read"))
    return caught.value.message


async def test_two_hung_reads_make_their_mount_unavailable_and_no_other(disk: Disk) -> None:
    """One dead disk costs two threads and its own files, and is said with its name."""
    of = DiskThreads()
    await leave_behind(of, disk, b"/dead/1")
    assert await of.run(b"/dead/2", lambda: "one may be a bad sector") == "one may be a bad sector"
    await leave_behind(of, disk, b"/dead/2")
    assert of.hung() == 2
    assert await refusal(of, b"/dead/3") == "reads below '/dead' hang in the kernel; see to its disk"
    assert await of.run(b"/healthy/1", lambda: "served") == "served"
    disk.is_back.set()
    await wait_for(lambda: of.unfinished() == 0)
    assert of.hung() == 0
    assert await of.run(b"/dead/3", lambda: "back") == "back"


async def test_very_many_hung_reads_end_all_reading(disk: Disk) -> None:
    """Threads are not given away without end, however many disks are dead."""
    of = DiskThreads()
    for n in range(threads.MAX_HUNG):
        assert await of.run(b"/healthy", lambda: "served") == "served"
        await leave_behind(of, disk, b"/dead-%d/1" % (n // 2))
    assert of.hung() == 16
    assert await refusal(of, b"/healthy") == "too many reads hang in the kernel; see to the disks"


async def test_as_long_as_it_is_in_doubt_whether_threads_hang_the_next_waits(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking and resetting in a loop leaves two threads behind, not a thousand before the second is over."""
    monkeypatch.setattr(threads, "HUNG_SECONDS", LONG)
    of = DiskThreads()
    for path in (b"/dead/1", b"/dead/2"):
        await leave_behind(of, disk, path)
    assert (of.unfinished(), of.hung()) == (2, 0)
    answers: list[str] = []

    async def ask() -> None:
        answers.append(await of.run(b"/dead/3", lambda: "read"))

    async with trio.open_nursery() as asking:
        asking.start_soon(ask)
        for _ in range(3):
            await wait_all_tasks_blocked(0.01)
        assert answers == []
        assert await of.run(b"/healthy/1", lambda: "served") == "served"
        disk.is_back.set()
    assert answers == ["read"]


async def test_doubt_becomes_certainty_after_a_second(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waited for it is told that the disk is dead."""
    monkeypatch.setattr(threads, "HUNG_SECONDS", 0.1)
    of = DiskThreads()
    for path in (b"/dead/1", b"/dead/2"):
        await leave_behind(of, disk, path)
    began = trio.current_time()
    assert "'/dead'" in await refusal(of, b"/dead/3")
    assert trio.current_time() - began < 5


async def test_doubt_about_very_many_threads_makes_all_wait(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound of all threads holds in that second as well."""
    monkeypatch.setattr(threads, "HUNG_SECONDS", LONG)
    monkeypatch.setattr(threads, "MAX_HUNG", 1)
    of = DiskThreads()
    await leave_behind(of, disk, b"/dead/1")
    with trio.move_on_after(0.1) as scope:
        await of.run(b"/healthy", lambda: pytest.fail("it was read"))
    assert scope.cancelled_caught


async def test_asker_that_leaves_before_its_thread_began_leaves_nothing() -> None:
    """What never ran cannot hang."""
    of = DiskThreads()
    with trio.CancelScope() as scope:
        scope.cancel()
        await of.run(b"/x", lambda: pytest.fail("it ran"))
    assert scope.cancelled_caught
    assert of.unfinished() == 0


async def test_errors_come_through_and_leave_nothing() -> None:
    """A missing file is an answer, not a hung thread."""
    of = DiskThreads()
    with pytest.raises(ZeroDivisionError):
        await of.run(b"/x", lambda: 1 / 0)
    assert of.unfinished() == 0


# Mount points

TABLE = [
    b"22 1 254:0 / / rw - ext4 /dev/vda rw\n",
    b"23 22 0:5 / /mnt rw - nfs server:/ rw\n",
    b"24 22 0:6 / /mnt/my\\040disk rw - nfs server:/ rw\n",
    b"25 22 0:7 / /mnt/my\\134disk rw - nfs server:/ rw\n",
]


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        (b"/etc/passwd", b"/"),
        (b"/mnt", b"/mnt"),
        (b"/mnt/x", b"/mnt"),
        (b"/mntx", b"/"),
        (b"/mnt/my disk/x", b"/mnt/my disk"),
        (b"/mnt/my\\disk/x", b"/mnt/my\\disk"),
        (b"/mnt/my", b"/mnt"),
        (b"/", b"/"),
    ],
)
def test_mount_point_is_the_longest_above_a_path(path: bytes, mount: bytes) -> None:
    """The operator reads the name that ``umount`` takes."""
    assert _find_mount_point(path, TABLE) == mount


def test_mount_point_of_a_relative_path_is_that_of_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are asked for from the folder of the start."""
    monkeypatch.chdir("/proc")
    assert _mount_point(b"version") == b"/proc"
    assert _mount_point(b"/proc/self") == b"/proc"


def test_without_a_folder_or_a_table_all_is_one_mount(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is still counted, only more coarsely."""
    gone = os.path.join(tmp_path, "gone")
    os.mkdir(gone)
    monkeypatch.chdir(gone)
    os.rmdir(gone)
    assert _mount_point(b"/proc/version") == b"/"
