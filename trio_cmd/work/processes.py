"""A program and its input enter; its output leaves as it comes, then its exit status.

No shell is ever involved.  A program runs in a process group of its own, and when it has ended,
or is cancelled, nobody of that group is left: not the children it forgot, not those that ignore
SIGTERM.  For this the server is a child subreaper: the orphans of its children become its own.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import trio

from trio_cmd.work.pipes import Pipe, Readers
from trio_cmd.work.strays import Run, Strays

__all__ = ["GroupReaper", "become_subreaper", "run_program"]

# Between SIGTERM and SIGKILL to a program that is cancelled.
TERMINATE_SECONDS = 1.0
# What a program's forgotten children may still print, and live, after it has exited.
# Under the half second that a client may have to wait for nothing.
GRACE_SECONDS = 0.4
_REAP_SECONDS = 0.02
_PR_SET_CHILD_SUBREAPER = 36
# Of all programs, for ``trio.run_process``.
_OPTIONS: Mapping[str, Any] = {
    "check": False,
    "env": {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
    "cwd": "/",
    "process_group": 0,
}


class GroupReaper:
    """Ends and reaps what is left of process groups whose leader is gone, also what left its group."""

    def __init__(self) -> None:
        self._groups: dict[int, float] = {}  # group -> when it is killed, on the monotonic clock
        self._strays = Strays()
        self._has_work = trio.Event()
        self.readers = Readers()

    def begin(self) -> Run:
        """Say that a program is about to be started; ``end`` must follow."""
        return self._strays.begin(is_first=not self._has_work.is_set())

    def end(self, run: Run) -> None:
        """Say that a program was waited for, or could not be started."""
        self._strays.end(run)
        if run.leader is not None and not _is_childless():
            self.adopt(run.leader)

    def adopt(self, group: int) -> None:
        """See to it that nobody of a group is left, after a grace; its leader was waited for."""
        if not _is_empty(group):
            self._groups[group] = time.monotonic() + GRACE_SECONDS
        self._has_work.set()

    async def run(self) -> None:
        """Work until cancelled; see ``close`` for what comes after.

        Cancel: groups that are left stay known.
        """
        become_subreaper()
        while True:
            await self._has_work.wait()
            await trio.sleep(_REAP_SECONDS)
            if not self._sweep(time.monotonic()):
                self._has_work = trio.Event()

    async def close(self, seconds: float) -> None:
        """Kill what is left, and wait for its end so long at most."""
        with trio.move_on_after(seconds, shield=True):
            while self._has_work.is_set() and self._sweep(float("inf")):
                await trio.sleep(_REAP_SECONDS)

    def _sweep(self, now: float) -> bool:
        """Reap the dead, and kill those whose grace is over; returns whether any are left."""
        for group, kill_at in list(self._groups.items()):
            if _is_empty(group):
                del self._groups[group]
            elif now >= kill_at:
                # It has a living child of ours, so the number cannot have become another's.
                _signal_group(group, signal.SIGKILL)
        has_strays = self._strays.sweep(now, GRACE_SECONDS)
        return has_strays or bool(self._groups)


class _Child:
    """A program, from before it is started until the reaper sees to the rest.

    It is what ``trio.run_process`` tells of the start (``trio.TaskStatus``).

    Args:
        reaper: sees to what the program leaves behind.
        pipe: gets what the program prints; closed with it.
        started: gets the number of the process when it has started.
    """

    __slots__ = ("_pipe", "_reaper", "_run", "_started")

    def __init__(self, reaper: GroupReaper, pipe: Pipe, started: Callable[[int], None] | None) -> None:
        self._pipe = pipe
        self._reaper = reaper
        self._started = started
        self._run = reaper.begin()

    async def run(self, argv: Sequence[str | bytes], stdin: int, stderr: int) -> int:
        """Run it to its end, and take all of its output; returns its exit status.

        Cancel: see ``run_program``.
        """
        pipe = self._pipe
        streams = {"stdin": stdin, "stdout": pipe.write_fd, "stderr": stderr}
        how = {**_OPTIONS, **streams, "deliver_cancel": self.end, "task_status": self}
        try:
            done = await trio.run_process(argv, **how)
            await self._take_last()
        except* trio.Cancelled:
            pipe.read_last()  # it was too young for a reader, perhaps
            if pipe.error is None:
                raise
        if pipe.error is not None:
            raise pipe.error
        return int(done.returncode)

    def started(self, process: trio.Process) -> None:
        """Say which process it is."""
        self._pipe.give()
        self._run.leader = process.pid
        self._reaper.readers.watch(self._pipe, partial(self._refuse, process))
        if self._started is not None:
            self._started(process.pid)

    async def end(self, process: trio.Process) -> None:
        """End its group: SIGTERM, after a second SIGKILL.

        Cancel: the program has ended by itself.
        """
        _signal_group(process.pid, signal.SIGTERM)
        await trio.sleep(TERMINATE_SECONDS)
        if process.returncode is None:  # else the number may be another's by now
            _signal_group(process.pid, signal.SIGKILL)

    async def _refuse(self, process: trio.Process) -> None:
        """End its group because its output is not wanted; see ``end``."""
        if process.returncode is None:
            await self.end(process)

    async def _take_last(self) -> None:
        """Take the rest of its output, at most a grace long: children may hold the pipe for ever."""
        self._reaper.readers.forget(self._pipe)
        if not self._pipe.read_last():
            with trio.move_on_after(GRACE_SECONDS):
                await self._pipe.wait_for_end()

    def close(self) -> None:
        """Say that it was waited for, or could not be started."""
        self._reaper.readers.forget(self._pipe)
        self._pipe.close()
        self._reaper.end(self._run)


async def run_program(
    argv: Sequence[str | bytes],
    take: Callable[[bytes], None],
    reaper: GroupReaper,
    *,
    stdin: int = subprocess.DEVNULL,
    stderr: int = subprocess.STDOUT,
    started: Callable[[int], None] | None = None,
) -> int:
    """Run a program to its end.

    Args:
        argv: the absolute path of the program, and its arguments.
        take: gets what it prints, standard output and error as one, in pieces; what it raises
            ends the program and comes out of here.
        reaper: sees to what the program leaves behind.
        stdin: a descriptor, by default the null device.
        stderr: a descriptor, by default standard output.
        started: gets the number of the process when it has started.

    Returns:
        Its exit status; negative: the signal that ended it.

    Raises:
        OSError: it cannot be started.

    Cancel: the group gets SIGTERM, after a second SIGKILL, and the program has been waited for.
    """
    child = _Child(reaper, Pipe(take), started)
    try:
        return await child.run(argv, stdin, stderr)
    except BaseExceptionGroup as errors:
        raise _only_one(errors) from None
    finally:
        child.close()


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass  # it ended by itself, or runs as somebody else


def _is_childless() -> bool:
    """Tell whether this process has no child at all: then nobody is left of any program.

    Of what programs have left behind, the eldest are children of this process, a subreaper.
    """
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    except AttributeError:  # not every system has it
        return False
    return False


def _is_empty(group: int) -> bool:
    """Reap the group's dead, and tell whether no child of ours is left in it."""
    try:
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _only_one(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Take the cause out of the groups that nurseries make, where there is only one."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def become_subreaper() -> None:
    """Make orphans of our children our own children, where the kernel can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
