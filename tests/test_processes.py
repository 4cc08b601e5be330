import ctypes
import errno
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from program import PATIENCE_SECONDS, count_descriptors, wait_for
from trio_cmd.work import pipes, processes, strays
from trio_cmd.work.pipes import Pipe
from trio_cmd.work.processes import GroupReaper, become_subreaper, run_program

SH = "/bin/sh"
PR_SET_CHILD_SUBREAPER = 36


class Output:
    """Takes what a program prints, and lets one wait for it."""

    def __init__(self) -> None:
        self.data = b""
        self._came = trio.Event()

    def take(self, piece: bytes) -> None:
        self.data += piece
        self._came.set()
        self._came = trio.Event()

    async def lines(self, number: int) -> list[bytes]:
        """Wait for so many whole lines."""
        with trio.fail_after(PATIENCE_SECONDS):
            while self.data.count(b"\n") < number:
                await self._came.wait()
        return self.data.splitlines()


def children() -> set[int]:
    """The children of this process, whichever of its threads started them; also those not waited for."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def subreaper() -> Iterator[None]:
    """Other tests' orphans stay init's."""
    before = children()
    yield
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    assert children() <= before, "a child or a zombie is left"


@pytest.fixture
async def reaper(subreaper: None) -> AsyncIterator[GroupReaper]:
    """A reaper at work, as the server has it; afterwards nobody may be left."""
    reaper = GroupReaper()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reaper.run)
        await wait_all_tasks_blocked()
        yield reaper
        nursery.cancel_scope.cancel()
    await reaper.close(PATIENCE_SECONDS)


async def shell(script: str, reaper: GroupReaper, output: Output | None = None) -> int:
    """Run a script to its end, in a bounded time."""
    with trio.fail_after(PATIENCE_SECONDS):
        return await run_program([SH, "-c", script], (output or Output()).take, reaper)


async def cancel_after_lines(script: str, reaper: GroupReaper, lines: int) -> list[bytes]:
    """Run a script, cancel it when it has printed so many lines; returns them."""
    output = Output()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shell, script, reaper, output)
            printed = await output.lines(lines)
            nursery.cancel_scope.cancel()
    assert not scope.cancelled_caught
    return printed


# Output and status


async def test_output_comes_as_it_is_printed(reaper: GroupReaper) -> None:
    """What is collected is bounded while it comes, not after memory is full."""
    output = Output()
    from_us, to_program = os.pipe()
    with open(to_program, "wb", buffering=0) as answer:
        async with trio.open_nursery() as nursery:
            script = "echo first; read word; echo got $word; echo error >&2"
            nursery.start_soon(partial(run_program, [SH, "-c", script], output.take, reaper, stdin=from_us))
            assert await output.lines(1) == [b"first"]
            answer.write(b"go\n")  # it waits for this: the first line came before its end
            nursery.cancel_scope.deadline = trio.current_time() + PATIENCE_SECONDS
    os.close(from_us)
    assert output.data == b"first\ngot go\nerror\n"


@pytest.mark.parametrize("status", [0, 1, 3, 127, 255])
async def test_exit_status_is_told(status: int, reaper: GroupReaper) -> None:
    """A program that failed must not look as if it had worked."""
    assert await shell(f"exit {status}", reaper) == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
async def test_signal_that_ended_the_program_is_told(number: signal.Signals, reaper: GroupReaper) -> None:
    """A crash is told from an exit."""
    assert await shell(f"ulimit -c 0; kill -{number.value} $$", reaper) == -number


async def test_much_output_comes_whole(reaper: GroupReaper) -> None:
    """What is printed in the last moment before the exit is not lost."""
    output = Output()
    assert await shell("head -c 3000000 /dev/zero; echo end", reaper, output) == 0
    assert output.data == bytes(3_000_000) + b"end\n"


async def test_program_that_closes_its_output_is_waited_for(reaper: GroupReaper) -> None:
    """The end of the output is not the end of the program: its status is still to come."""
    assert await shell("exec >&- 2>&-; sleep 0.1; exit 4", reaper) == 4


# What a program gets


async def test_program_gets_a_bare_environment_and_the_root_folder(
    reaper: GroupReaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token or setting of the server's environment reaches a child, and no file system is kept busy."""
    monkeypatch.setenv("TRIO_CMD_SECRET", "token")
    output = Output()
    with trio.fail_after(PATIENCE_SECONDS):
        await run_program(["/usr/bin/env"], output.take, reaper)
        assert sorted(output.data.splitlines()) == [b"LC_ALL=C", b"PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        output = Output()
        await run_program(["/bin/pwd"], output.take, reaper)
    assert output.data == b"/\n"


async def test_program_gets_three_descriptors_and_a_group_of_its_own(
    reaper: GroupReaper, tmp_path: Path
) -> None:
    """No client's socket is left open by a child, even one that somebody made inheritable."""
    output = Output()
    with (tmp_path / "file").open("wb") as leaked:
        os.set_inheritable(leaked.fileno(), True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shell, "echo $$; exec sleep 30", reaper, output)
            pid = int((await output.lines(1))[0])
            assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
            assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
            assert os.getpgid(pid) == pid
            nursery.cancel_scope.cancel()


async def test_program_without_input_reads_the_end_of_it(reaper: GroupReaper) -> None:
    """A program that asks a question gets no answer and does not wait for one."""
    output = Output()
    with trio.fail_after(PATIENCE_SECONDS):
        assert await run_program(["/bin/cat"], output.take, reaper) == 0
    assert output.data == b""


async def test_arguments_are_no_shell(reaper: GroupReaper) -> None:
    """What a client names can never be run."""
    output = Output()
    with trio.fail_after(PATIENCE_SECONDS):
        await run_program(["/bin/echo", "$(id)", ";", "`id`", "|", "*"], output.take, reaper)
    assert output.data == b"$(id) ; `id` | *\n"


@pytest.mark.parametrize("kind", ["missing", "folder", "not executable", "no program"])
async def test_program_that_cannot_be_started_is_an_error_of_the_system(
    kind: str, reaper: GroupReaper, tmp_path: Path
) -> None:
    """It comes out as what it is, not in a group, so that it becomes one line; nothing stays open."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "not executable").write_bytes(b"#!/bin/sh")
    (tmp_path / "no program").write_bytes(b"\1\2\3")
    (tmp_path / "no program").chmod(0o755)
    before = count_descriptors()
    with pytest.raises(OSError) as caught:  # noqa: PT011 (its number is looked at below)
        await run_program([str(tmp_path / kind)], Output().take, reaper)
    numbers = {"missing": errno.ENOENT, "no program": errno.ENOEXEC}
    assert caught.value.errno == numbers.get(kind, errno.EACCES)
    await wait_for(lambda: count_descriptors() <= before)


# Ending


async def test_cancelled_program_gets_a_chance_to_end_well(reaper: GroupReaper, tmp_path: Path) -> None:
    """SIGTERM comes first: what a program has begun it may clean up."""
    mark = tmp_path / "cleaned up"
    script = (
        f"exec 2>/dev/null; trap 'echo yes > \"{mark}\"; exit 0' TERM; echo $$; while :; do sleep 0.01; done"
    )
    (group,) = await cancel_after_lines(script, reaper, 1)
    assert mark.read_text() == "yes\n"
    await wait_for(lambda: is_gone(int(group)))


async def test_cancelled_program_that_ignores_sigterm_is_killed(reaper: GroupReaper) -> None:
    """A client that has gone costs a second at most, whatever it has started."""
    began = trio.current_time()
    (group,) = await cancel_after_lines("trap '' TERM; echo $$; exec sleep 30", reaper, 1)
    assert trio.current_time() - began < 10 * processes.TERMINATE_SECONDS
    await wait_for(lambda: is_gone(int(group)))


async def test_cancelled_program_has_what_it_printed_taken_though_nobody_read(
    reaper: GroupReaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy server comes late to read; what a program printed before its deadline is shown all the same."""
    monkeypatch.setattr(pipes, "LATE_SECONDS", PATIENCE_SECONDS)
    mark, output = tmp_path / "printed", Output()
    script = f"echo all; echo > {mark}; exec sleep 30"
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_program, [SH, "-c", script], output.take, reaper)
            await wait_for(mark.exists)
            nursery.cancel_scope.cancel()
    assert output.data == b"all\n"


async def test_cancelled_program_takes_its_children_with_it(reaper: GroupReaper) -> None:
    """``sh -c 'sleep 30 & sleep 30'`` left orphans behind the plain server."""
    (group,) = await cancel_after_lines("sleep 30 & echo $$; sleep 30", reaper, 1)
    await wait_for(lambda: is_gone(int(group)))


async def test_cancelled_program_takes_a_grandchild_that_ignores_sigterm_with_it(reaper: GroupReaper) -> None:
    """The leader obeys and is gone; the one that does not obey is found all the same."""
    script = "(trap '' TERM; echo ready; exec sleep 30) & echo $$; wait"
    printed = await cancel_after_lines(script, reaper, 2)
    (group,) = set(printed) - {b"ready"}
    await wait_for(lambda: is_gone(int(group)))


class Unwanted(Exception):
    pass


async def test_taker_that_raises_ends_the_program(reaper: GroupReaper) -> None:
    """Who has seen enough output says so by an error, and gets that very error back."""
    groups: list[bytes] = []
    error = Unwanted()

    def refuse(piece: bytes) -> None:
        groups.append(piece)
        raise error

    with trio.fail_after(PATIENCE_SECONDS), pytest.raises(Unwanted) as caught:
        await run_program([SH, "-c", "sleep 30 & echo $$; sleep 30"], refuse, reaper)
    assert caught.value is error
    await wait_for(lambda: is_gone(int(groups[0])))


async def test_taker_that_raises_ends_also_a_program_that_ignores_sigterm(reaper: GroupReaper) -> None:
    """Whoever has printed too much gets no more than the second that everybody has."""
    groups: list[bytes] = []

    def refuse(piece: bytes) -> None:
        groups.append(piece)
        raise Unwanted

    began = trio.current_time()
    with trio.fail_after(PATIENCE_SECONDS), pytest.raises(Unwanted):
        await run_program([SH, "-c", "trap '' TERM; echo $$; exec sleep 30"], refuse, reaper)
    assert trio.current_time() - began < 10 * processes.TERMINATE_SECONDS
    assert len(groups) == 1
    await wait_for(lambda: is_gone(int(groups[0])))


async def test_taker_that_raises_at_the_end_is_heard(reaper: GroupReaper) -> None:
    """A program that has ended before anybody read is refused as well."""

    def refuse(piece: bytes) -> None:
        raise Unwanted

    with trio.fail_after(PATIENCE_SECONDS), pytest.raises(Unwanted):
        await run_program(["/bin/echo"], refuse, reaper)


async def test_taker_that_raised_is_heard_also_when_the_time_is_over(reaper: GroupReaper) -> None:
    """Output that was cut is said to be cut, although the program dies slowly and its deadline comes."""

    def refuse(piece: bytes) -> None:
        scope.cancel()
        raise Unwanted

    with trio.fail_after(PATIENCE_SECONDS), pytest.raises(Unwanted), trio.CancelScope() as scope:
        await run_program([SH, "-c", "trap '' TERM; echo; exec sleep 30"], refuse, reaper)


async def test_no_signal_is_sent_after_the_end(reaper: GroupReaper, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of a program that was waited for may be that of another by now."""
    sent: list[signal.Signals] = []
    monkeypatch.setattr(processes, "_signal_group", lambda group, number: sent.append(number))
    monkeypatch.setattr(processes, "TERMINATE_SECONDS", 0.0)
    process = await trio.lowlevel.open_process(["/bin/true"])
    child = processes._Child(reaper, Pipe(Output().take), None)
    await process.wait()
    await child._refuse(process)
    assert not sent
    await child.end(process)
    assert sent == [signal.SIGTERM]
    child.close()


async def test_grandchild_that_holds_the_output_does_not_hold_the_answer(reaper: GroupReaper) -> None:
    """The program has exited: half a second later the client has its answer."""
    output = Output()
    began = trio.current_time()
    assert await shell("sleep 30 & echo $$; exit 3", reaper, output) == 3
    assert trio.current_time() - began < 10 * processes.GRACE_SECONDS
    await wait_for(lambda: is_gone(int(output.data)))


async def test_grandchild_that_was_forgotten_is_ended(reaper: GroupReaper) -> None:
    """A program that leaves a daemon behind cannot fill the host with them."""
    output = Output()
    began = trio.current_time()
    assert await shell("trap '' TERM; sleep 30 >/dev/null 2>&1 & echo $$", reaper, output) == 0
    await wait_for(lambda: is_gone(int(output.data)))
    assert trio.current_time() - began < 10 * processes.GRACE_SECONDS


async def test_what_a_grandchild_prints_in_its_grace_is_taken(
    reaper: GroupReaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last words of a pipeline may come after its leader has gone."""
    monkeypatch.setattr(processes, "GRACE_SECONDS", PATIENCE_SECONDS)
    output = Output()
    assert (
        await shell("(while kill -0 $$; do sleep 0.01; done; echo late) 2>/dev/null & exit 0", reaper, output)
        == 0
    )
    assert output.data == b"late\n"


async def test_cancellation_in_the_grace_ends_the_wait(
    reaper: GroupReaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who leaves while a grandchild still holds the output is let go, and the grandchild is ended."""
    monkeypatch.setattr(processes, "GRACE_SECONDS", 3600.0)
    output = Output()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_program, [SH, "-c", "sleep 30 & echo $$"], output.take, reaper))
        (group,) = await output.lines(1)
        await wait_for(lambda: int(group) not in children())
        monkeypatch.setattr(processes, "GRACE_SECONDS", 0.0)
        nursery.cancel_scope.cancel()
    await wait_for(lambda: is_gone(int(group)))


async def test_cancellation_before_the_start_starts_nobody_to_stay(reaper: GroupReaper) -> None:
    """A client may reset in any moment, also in the one in which its child is born."""
    before = count_descriptors()
    gc.disable()  # what is closed is closed by us, not when the garbage is collected
    try:
        for _ in range(5):
            with trio.CancelScope() as scope:
                scope.cancel()
                await run_program(["/bin/sleep", "30"], Output().take, reaper)
            assert scope.cancelled_caught
        await wait_for(lambda: count_descriptors() <= before)
    finally:
        gc.enable()
    await wait_for(lambda: not children())


async def test_cancellation_during_the_start_leaves_nothing(reaper: GroupReaper) -> None:
    """The start itself cannot be stopped; what it brought is ended and its pipe is closed."""
    before = count_descriptors()
    gc.disable()
    try:
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_program, ["/bin/sleep", "30"], Output().take, reaper)
                await wait_all_tasks_blocked()  # for the thread that starts it
                nursery.cancel_scope.cancel()
        await wait_for(lambda: count_descriptors() <= before)
    finally:
        gc.enable()
    await wait_for(lambda: not children())


async def test_hundred_programs_leave_no_descriptor_and_no_zombie(reaper: GroupReaper) -> None:
    """The server runs for months."""
    await shell("exit 0", reaper)
    before = count_descriptors()
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(run_program, ["/bin/true"], Output().take, reaper)
    await wait_for(lambda: count_descriptors() <= before)
    assert not children()


# The reaper alone


async def start_orphan(reaper: GroupReaper) -> int:
    """Leave a grandchild that ignores SIGTERM to a reaper; returns its group."""
    output = Output()
    script = "trap '' TERM; sleep 30 >/dev/null 2>&1 & echo $$"
    assert await shell(script, reaper, output) == 0
    return int(output.data)


async def test_stopping_server_leaves_nobody(subreaper: None) -> None:
    """What the reaper had no time for is killed when it is closed."""
    become_subreaper()
    reaper = GroupReaper()
    group = await start_orphan(reaper)
    assert not is_gone(group)
    await reaper.close(PATIENCE_SECONDS)
    assert is_gone(group)


async def test_cancelled_reaper_still_knows_whom_to_end(
    subreaper: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order in which the server's tasks stop decides nothing."""
    reaper = GroupReaper()
    monkeypatch.setattr(processes, "GRACE_SECONDS", 3600.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reaper.run)
        await wait_all_tasks_blocked()
        group = await start_orphan(reaper)
        nursery.cancel_scope.cancel()
    assert not is_gone(group)
    with trio.CancelScope() as stopping:
        stopping.cancel()  # as the server is when it closes its reaper
        await reaper.close(PATIENCE_SECONDS)
    assert is_gone(group)


async def test_close_waits_no_longer_than_told(subreaper: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot die must not hold the stopping server."""
    become_subreaper()
    reaper = GroupReaper()
    group = await start_orphan(reaper)
    with monkeypatch.context() as undying:
        undying.setattr(processes, "_signal_group", lambda group, number: None)
        undying.setattr(strays, "_kill", lambda pid, group: None)
        began = trio.current_time()
        await reaper.close(0.1)
        assert trio.current_time() - began < 5
    assert not is_gone(group)
    await reaper.close(PATIENCE_SECONDS)


async def test_reaper_rests_between_groups(reaper: GroupReaper) -> None:
    """One group after another is ended, and between them the reaper costs nothing."""
    for _ in range(2):
        group = await start_orphan(reaper)
        await wait_for(lambda group=group: is_gone(group))  # type: ignore[misc]  # mypy infers no default
        await wait_for(lambda: not reaper._has_work.is_set())


async def test_program_that_leaves_nobody_behind_costs_no_search(
    reaper: GroupReaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where this process has no child at all nobody can be left; so most programs need no look around."""
    await wait_for(lambda: not children())
    monkeypatch.setattr(processes, "_is_empty", lambda group: pytest.fail("looked"))
    assert await shell("exit 0", reaper) == 0
    assert not reaper._has_work.is_set()


def test_elsewhere_the_group_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every system can be asked for all children at once without reaping them."""
    monkeypatch.delattr(os, "waitid")
    assert not processes._is_childless()


async def test_group_that_has_ended_by_itself_is_no_error(reaper: GroupReaper) -> None:
    """Between the look and the signal a process may end."""
    output = Output()
    await shell("echo $$", reaper, output)
    processes._signal_group(int(output.data), signal.SIGTERM)
    reaper.adopt(int(output.data))
    assert not reaper._groups


def test_elsewhere_nobody_becomes_a_subreaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other systems have no such call; the server runs without."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("called"))
    monkeypatch.setattr(sys, "platform", "freebsd14")
    become_subreaper()
