"""What the process is told by signals, from the start of the server to its very end."""

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import trio

from trio_cmd.records import EventLogger, events
from trio_cmd.server.server import Server

__all__ = ["note_signals", "obey_signals"]

_STOPPING = (signal.SIGINT, signal.SIGTERM)
_HANGUP = getattr(signal, "SIGHUP", None)  # a closed window, or the settings have changed
_REPORTING = getattr(signal, "SIGUSR2", None)
# It would die of these otherwise.
_SURVIVED = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
# What stopping may take beyond ``stop_seconds``: ending children and writing the last records.
LAST_SECONDS = 2.0
EXIT_CRASHED = 70


@contextmanager
def note_signals(*, is_last: bool = False) -> Iterator[list[int]]:
    """Note signals instead of dying of them, before the server obeys them and after it has ended.

    So none is lost while it starts, and none cuts the last records.

    Args:
        is_last: the process ends behind this: signals go on to be ignored, so that one that comes late
            does not change its exit code.

    Yields:
        The signals that came and were not obeyed; grows.
    """
    noted: list[int] = []
    # A handler, and not SIG_IGN: that one children would inherit.
    old = {
        number: signal.signal(number, lambda came, _: noted.append(came))
        for number in (*_STOPPING, *_SURVIVED)
    }
    try:
        yield noted
    finally:
        for number, handler in old.items():
            signal.signal(number, signal.SIG_IGN if is_last else handler)


async def obey_signals(
    server: Server,
    log: EventLogger,
    cancel: trio.CancelScope,
    noted: Sequence[int] = (),
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Tell the server what it is told; cancel everything when it is told twice to stop.

    Args:
        server: to stop, to reload, to report.
        log: records what is done for the others.
        cancel: what holds the server.
        noted: the signals that came before.
        task_status: told when the signals are ours.

    Cancel: the signals have their old meaning again.
    """
    has_window = sys.stdin is not None and sys.stdin.isatty()  # asked now: a closed one is none any more

    def obey(number: int) -> None:
        is_stop = number in _STOPPING or (has_window and number == _HANGUP)
        if not is_stop:
            _obey_other(number, server, log)
        elif server.stop_reason is None:
            _end_at_last(server.stop_seconds + LAST_SECONDS)
            server.stop(signal.Signals(number).name)
        else:
            cancel.cancel()

    with trio.open_signal_receiver(*_STOPPING, *_SURVIVED) as received:
        for number in noted:
            obey(number)
        task_status.started()
        async for number in received:
            obey(number)


def _obey_other(number: int, server: Server, log: EventLogger) -> None:
    """Do what a signal wants that does not stop."""
    if number == _HANGUP:
        server.reload()
    elif number == _REPORTING:
        server.report()
    else:
        result = "the log file is opened anew" if server.reopen_log() else "nothing is done for it"
        text = f"{signal.Signals(number).name} received; {result}"
        log.record(events.MESSAGE, text=text, logger="trio_cmd")


def _end_at_last(seconds: float) -> None:
    """End the process after so many seconds, whatever holds it: a thread in a dead disk, say."""

    def end() -> None:
        try:
            if select.select([], [2], [], 0)[1]:  # a full pipe would hold this thread too
                os.write(2, b"trio-cmd: something held the stop for too long; leaving anyway\n")
        finally:
            os._exit(EXIT_CRASHED)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
