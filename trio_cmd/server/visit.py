"""One connection as the record tells of it: who it is, how it began and why it ended."""

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from trio_cmd.addresses import Address, parse_address
from trio_cmd.records import EventLogger, events
from trio_cmd.records.events import SYSTEM, lost_event
from trio_cmd.server.access import Visitor
from trio_cmd.server.unix_socket import Credentials

if TYPE_CHECKING:
    from trio_cmd.server.session import Session

__all__ = ["SYSTEM", "Peer", "Visit"]

UNKNOWN = "unknown"


class Peer(NamedTuple):
    """The other end of a connection; of one that was gone before it was looked at, nothing is known."""

    host: str = UNKNOWN
    port: int = 0
    credentials: Credentials | None = None

    def address(self) -> Address | None:
        """Where it is."""
        return None if self.host == UNKNOWN else parse_address(self.host)

    def visitor(self) -> Visitor:
        """Who it is, without a certificate."""
        return Visitor(self.address(), uid=self.credentials.uid if self.credentials else None)

    def fields(self) -> dict[str, Any]:
        """Say in a record who it is; a client of the unix socket has no port."""
        if self.host == "unix":
            return {"client": self.host, **(self.credentials._asdict() if self.credentials else {})}
        return {"client": self.host, "port": self.port}


class Visit:
    """What the record says of a connection.

    Args:
        peer: its other end.
        log: bound to it.
    """

    __slots__ = (
        *("began", "bytes_in", "bytes_out", "is_begun", "is_counted", "is_recorded"),
        *("has_place", "log", "peer", "reason", "requests", "session", "tls"),
        "__weakref__",  # a limiter knows it
    )

    def __init__(self, peer: Peer, log: EventLogger) -> None:
        self.peer = peer
        self.log = log
        self.is_recorded = True  # else a sum tells of it
        self.is_begun = False
        self.has_place = False  # to be given back
        self.is_counted = False  # as admitted or refused
        self.session: Session | None = None  # while it converses
        self.reason: str | None = None
        self.began = time.monotonic()
        self.requests = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.tls: dict[str, str] | None = None  # the protocol, and whose certificate it was; or what failed

    def begin(self, log: EventLogger) -> None:
        """Record the beginning, once.

        Args:
            log: bound also to what is known by now.
        """
        if not self.is_recorded or self.is_begun:
            return
        self.is_begun = True
        template = log.connection_template()
        if template is None:
            log.bind(system=SYSTEM).record(events.CLIENT_CONNECTED)
        else:
            log.put(template.connected(), events.CLIENT_CONNECTED)

    def end(self) -> None:
        """Record the end; also the beginning, if that has not been said."""
        if not self.is_recorded:
            return
        self.begin(self.log)
        reason, seconds = self.reason or "crashed", round(time.monotonic() - self.began, 6)
        counts = (seconds, self.requests, self.bytes_in, self.bytes_out)
        template = None if self.tls else self.log.connection_template()
        line = None if template is None else template.lost(reason, *counts)
        if line is None:
            self._record_end(reason, *counts)
        else:
            self.log.put(line, events.CLIENT_LOST)

    def _record_end(self, reason: str, seconds: float, requests: int, bytes_in: int, bytes_out: int) -> None:
        level, why = lost_event(reason)
        self.log.record(
            events.CLIENT_LOST,
            level,
            why=why,
            reason=reason,
            seconds=seconds,
            requests=requests,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            **(self.tls or {}),
        )
