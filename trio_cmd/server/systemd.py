"""What systemd is told: how the server is enters, datagrams to the service manager leave.

The protocol is that of sd_notify(3): lines of NAME=VALUE to the socket that ``NOTIFY_SOCKET``
names.  Nothing here ever waits, and no failure costs a client anything.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Self

import trio

from trio_cmd.escape import escape
from trio_cmd.records import EventLogger, events

__all__ = ["Notifier", "take_variables"]

VARIABLES = (
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
    *("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"),
)
# How often ``systemctl status`` is given something new at most.
STATUS_SECONDS = 5.0
MAX_DIGITS = 20  # of a number of 64 bits


def take_variables(environ: MutableMapping[str, str]) -> Mapping[str, str]:
    """Take what systemd says out of the environment: it is meant for this process, not for its children."""
    return {name: environ.pop(name) for name in VARIABLES if name in environ}


class Notifier:
    """Tells the service manager how the server is; without one, does nothing.

    Args:
        variables: ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``, where they are set.
        log: records the first datagram that cannot be sent, and no other.

    Attributes:
        failed: how many could not be sent.
    """

    def __init__(self, variables: Mapping[str, str], log: EventLogger) -> None:
        self._log = log
        self._address = _address(variables.get("NOTIFY_SOCKET", ""))
        self._watchdog_seconds = _watchdog_seconds(variables)
        self._socket: socket.socket | None = None
        self._told = ""
        self._told_at = 0.0
        self.failed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def ready(self, status: str) -> None:
        """Say that the server listens, or has read its settings again."""
        self._tell("READY=1", self._note_status(status))

    def reloading(self) -> None:
        """Say that the settings are being read; ``ready`` must follow, also when they are refused."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """Say that the server stops."""
        self._tell("STOPPING=1", self._note_status(status))

    async def run(self, describe: Callable[[], str]) -> None:
        """Say again and again that the event loop turns, and how the server is.

        A loop that does not turn says nothing, and after ``WatchdogSec=`` systemd ends the process.
        Twice in that time, as sd_watchdog_enabled(3) advises.

        Args:
            describe: gives one line for ``systemctl status``.

        Cancel: no more is said.
        """
        if self._address is None:
            return
        tick = self._watchdog_seconds / 2 or STATUS_SECONDS
        while True:
            await trio.sleep(tick)
            if self._watchdog_seconds:
                self._tell("WATCHDOG=1")
            if time.monotonic() - self._told_at >= STATUS_SECONDS and self._told != (status := describe()):
                self._tell(self._note_status(status))

    def _note_status(self, status: str) -> str:
        self._told, self._told_at = status, time.monotonic()
        return f"STATUS={status}"

    def _tell(self, *lines: str) -> None:
        """Send one datagram, or count that it could not be sent."""
        if self._address is None:
            return
        try:
            if self._socket is None:  # kept: a sign of life must not need a free descriptor
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.settimeout(0)
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            self.failed += 1
            if self.failed == 1:
                text = f"systemd cannot be told how the server is: {escape(str(error))}"
                self._log.record(events.MESSAGE, "warning", text=text, logger="trio_cmd")


def _address(text: str) -> bytes | None:
    """Make an address of ``NOTIFY_SOCKET``: a path, or after ``@`` an abstract name."""
    if not text:
        return None
    name = os.fsencode(text)
    return b"\0" + name[1:] if name.startswith(b"@") else name


def _watchdog_seconds(variables: Mapping[str, str]) -> float:
    """Tell after how long a silence systemd acts; 0: never, or it is meant for another process."""
    text = variables.get("WATCHDOG_USEC", "")
    is_ours = variables.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    is_number = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    return int(text) / 1e6 if is_ours and is_number else 0.0
