"""What a program leaves behind is ended wherever it has gone, and nobody else ever is."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from program import PATIENCE_SECONDS, wait_until
from trio_cmd.work import processes, strays
from trio_cmd.work.processes import GroupReaper, become_subreaper, run_program
from trio_cmd.work.strays import Strays

SLEEP = ["/bin/sleep", "30"]
PR_SET_CHILD_SUBREAPER = 36
NOW = float("inf")  # everybody's grace is over

ESCAPES = {
    "a session of its own": "setsid sleep 30 >/dev/null 2>&1 & echo $!",
    "no waiting parent": "(setsid sleep 30 >/dev/null 2>&1 & echo $!)",
    "children of its own": "setsid sh -c 'setsid sleep 30 & echo $!; exec sleep 30' 2>/dev/null & sleep 0.1",
    "no ear for SIGTERM": "trap '' TERM HUP; setsid sleep 30 >/dev/null 2>&1 & echo $!",
}


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def wait_until_gone(pid: int) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while not is_gone(pid):
            await trio.sleep(0.005)


@pytest.fixture
def subreaper() -> Iterator[None]:
    """Other tests' orphans stay init's."""
    become_subreaper()
    before = set(strays._children())
    yield
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    assert set(strays._children()) <= before, "a child or a zombie is left"


@pytest.fixture
async def reaper(subreaper: None) -> AsyncIterator[GroupReaper]:
    """A reaper at work, as the server has it."""
    reaper = GroupReaper()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reaper.run)
        await wait_all_tasks_blocked()
        yield reaper
        nursery.cancel_scope.cancel()
    await reaper.close(PATIENCE_SECONDS)


@pytest.fixture
def child(subreaper: None) -> Iterator[subprocess.Popen[bytes]]:
    """A child of this process that no run knows of."""
    child = subprocess.Popen(SLEEP, process_group=0)
    yield child
    child.kill()
    child.wait()


async def leave(script: str, reaper: GroupReaper) -> int:
    """Run a script that prints the number of what it leaves behind."""
    printed = bytearray()
    with trio.fail_after(PATIENCE_SECONDS):
        await run_program(["/bin/sh", "-c", script], printed.extend, reaper)
    return int(printed)


@pytest.mark.parametrize("script", ESCAPES.values(), ids=ESCAPES.keys())
async def test_what_left_its_group_is_ended_after_its_program(script: str, reaper: GroupReaper) -> None:
    """A program that makes daemons cannot fill the host with them."""
    pid = await leave(script, reaper)
    await wait_until_gone(pid)


async def test_what_made_a_group_of_its_own_is_ended_after_its_program(reaper: GroupReaper) -> None:
    """A shell with job control puts each job into one, and no session tells it from a program of ours."""
    code = """if True:
        import os
        pid = os.posix_spawn("/bin/sleep", ["sleep", "30"], {}, setpgroup=0,
            file_actions=[(os.POSIX_SPAWN_CLOSE, 1), (os.POSIX_SPAWN_CLOSE, 2)])
        print(pid)"""
    printed = bytearray()
    with trio.fail_after(PATIENCE_SECONDS):
        assert await run_program([sys.executable, "-ISc", code], printed.extend, reaper) == 0
    await wait_until_gone(int(printed))


async def test_what_left_its_group_is_ended_after_a_cancelled_program(reaper: GroupReaper) -> None:
    """A client that resets leaves nothing running, either."""
    printed = bytearray()
    came = trio.Event()

    def take(piece: bytes) -> None:
        printed.extend(piece)
        came.set()

    async with trio.open_nursery() as nursery:
        argv = ["/bin/sh", "-c", "setsid sleep 30 & echo $!; sleep 30"]
        nursery.start_soon(run_program, argv, take, reaper)
        await came.wait()
        nursery.cancel_scope.cancel()
    await wait_until_gone(int(printed))


async def test_stopping_server_ends_them_at_once(subreaper: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no grace when the server leaves."""
    monkeypatch.setattr(processes, "GRACE_SECONDS", 3600.0)
    reaper = GroupReaper()
    pid = await leave(ESCAPES["a session of its own"], reaper)
    assert not is_gone(pid)
    await reaper.close(PATIENCE_SECONDS)
    assert is_gone(pid)


async def test_programs_that_run_are_not_touched(reaper: GroupReaper) -> None:
    """The end of one client's program is not the end of another's, nor of what that one has started."""
    printed = bytearray()
    came = trio.Event()

    def take(piece: bytes) -> None:
        printed.extend(piece)
        if printed.count(b"\n") == 2:
            came.set()

    async with trio.open_nursery() as nursery:
        # The first is an orphan, thus a child of the server, but still of its program's group.
        argv = ["/bin/sh", "-c", "(sleep 30 & echo $!); echo $$; exec sleep 30"]
        nursery.start_soon(run_program, argv, take, reaper)
        await came.wait()
        for _ in range(2):
            await wait_until_gone(await leave(ESCAPES["a session of its own"], reaper))
        assert not any(map(is_gone, map(int, printed.split())))
        nursery.cancel_scope.cancel()
    for pid in map(int, printed.split()):
        await wait_until_gone(pid)


async def test_server_that_ran_nothing_ends_nobody(child: subprocess.Popen[bytes]) -> None:
    """Its stop, and the stop of one whose programs have long gone, is nobody else's."""
    reaper = GroupReaper()
    reaper._strays._since = 0
    await reaper.close(PATIENCE_SECONDS)
    assert not Strays().sweep(NOW, 0)
    assert child.poll() is None


# The look alone


def looking_back() -> Strays:
    """A look that takes every child for younger than the first program."""
    looking = Strays()
    looking._since = 0
    return looking


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may be killed or waited for."""
    monkeypatch.setattr(strays, "_kill", lambda pid, group: pytest.fail("killed"))
    monkeypatch.setattr(strays, "_is_reaped", lambda pid: pytest.fail("waited for"))


def test_child_that_is_starting_is_not_touched(child: subprocess.Popen[bytes], untouched: None) -> None:
    """Between the fork and its report a child is known to nobody; it is neither killed nor waited for."""
    looking = looking_back()
    starting = looking.begin(is_first=False)
    assert looking.sweep(NOW, 0)
    assert looking.sweep(NOW, 0)
    starting.leader = child.pid
    assert not looking.sweep(NOW, 0)


def test_program_that_left_its_own_group_is_not_touched(subreaper: None, untouched: None) -> None:
    """It is waited for elsewhere, whatever it has done to be found."""
    with subprocess.Popen(SLEEP) as child:
        looking = looking_back()
        looking.begin(is_first=False).leader = child.pid
        assert not looking.sweep(NOW, 0)
        child.kill()


def test_child_that_was_not_the_one_that_started_is_ended(child: subprocess.Popen[bytes]) -> None:
    """Under load there is always a start under way; strays are found all the same."""
    looking = looking_back()
    starting = looking.begin(is_first=False)
    assert looking.sweep(NOW, 0)
    later = looking.begin(is_first=False)
    looking.end(starting)
    assert looking.sweep(NOW, 0)
    assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) is not None
    assert not looking.sweep(NOW, 0)
    looking.end(later)


def test_stray_lives_through_its_grace(child: subprocess.Popen[bytes]) -> None:
    """The last words of a pipeline may come late."""
    looking = looking_back()
    assert looking.sweep(100.0, 0.5)
    assert looking.sweep(100.4, 0.5)
    assert child.poll() is None
    assert looking.sweep(100.5, 0.5)
    assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) is not None


def test_stray_that_was_seen_before_it_left_its_group_is_ended(subreaper: None) -> None:
    """Between the fork and the call of ``setsid`` it is still in a group that nobody is left of later."""
    script = ["/bin/sh", "-c", "read go; exec setsid sleep 30"]
    with (
        subprocess.Popen(script, stdin=subprocess.PIPE, process_group=0) as leader,
        subprocess.Popen(script, stdin=subprocess.PIPE, process_group=leader.pid) as child,
    ):
        looking = looking_back()
        assert looking.sweep(100.0, 0.5)
        leader.kill()
        leader.wait()
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
        wait_until(lambda: os.getpgid(child.pid) == child.pid, "it in its own group")
        assert looking.sweep(NOW, 0.5)
        killed = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert killed is not None
        assert killed.si_status == signal.SIGKILL


def test_child_that_was_there_before_is_not_touched(child: subprocess.Popen[bytes]) -> None:
    """``helper & exec trio-cmd`` in a container's start script keeps its helper."""
    time.sleep(2 / strays._TICKS_PER_SECOND)  # the kernel's count of births is as coarse as this
    looking = Strays()
    looking.end(looking.begin(is_first=True))
    assert not looking.sweep(NOW, 0)
    assert child.poll() is None


def test_a_run_beside_others_does_not_make_them_older(child: subprocess.Popen[bytes]) -> None:
    """What an earlier program left is a stray, whatever has begun since."""
    looking = looking_back()
    first = looking.begin(is_first=False)
    time.sleep(2 / strays._TICKS_PER_SECOND)
    looking.end(looking.begin(is_first=True))
    looking.end(first)
    looking.end(looking.begin(is_first=False))
    assert looking.sweep(NOW, 0)


def test_stray_in_our_own_group_is_killed_alone(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not take the server with it."""
    monkeypatch.setattr(os, "getpgrp", lambda: child.pid)
    monkeypatch.setattr(os, "killpg", lambda group, number: pytest.fail("the whole group"))
    assert looking_back().sweep(NOW, 0)
    assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) is not None


@pytest.mark.parametrize("error", [ProcessLookupError, PermissionError])
def test_stray_that_cannot_be_killed_does_not_end_the_server(
    error: type[OSError], child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs as somebody else, by sudo, is root's to end."""

    def refuse(group: int, number: int) -> None:
        raise error

    monkeypatch.setattr(os, "killpg", refuse)
    assert looking_back().sweep(NOW, 0)
    processes._signal_group(child.pid, 9)  # type: ignore[arg-type]  # a process group never seen


def test_kernel_without_a_list_of_children_has_no_strays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The groups are ended there as everywhere."""
    monkeypatch.setattr(os, "listdir", lambda path: ["0"])
    assert strays._children() == []


def test_process_is_read_whatever_its_name(tmp_path: Path, subreaper: None) -> None:
    """A name with blanks and parentheses cannot pretend to be in another group."""
    path = tmp_path / "a) 1 2 (b"
    shutil.copy("/bin/sleep", path)
    with subprocess.Popen([path, "30"], process_group=0) as child:
        status = strays._status(child.pid)
        child.kill()
    assert status is not None
    assert status.group == child.pid
    assert strays._status(child.pid) is None


def test_child_that_somebody_else_waited_for_is_gone(child: subprocess.Popen[bytes]) -> None:
    """There is nothing to do for it."""
    with contextlib.suppress(ChildProcessError):
        assert not strays._is_reaped(child.pid)
    child.kill()
    child.wait()
    assert strays._is_reaped(child.pid)
