"""One connection as the record tells of it: who it is, how it began and why it ended."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trio_cmd.addresses import Address, parse_address
from trio_cmd.records import EventLogger, events
from trio_cmd.records.events import lost_event
from trio_cmd.server.access import Visitor
from trio_cmd.server.unix_socket import Credentials

if TYPE_CHECKING:
    from trio_cmd.server.session import Session

__all__ = ["SYSTEM", "Peer", "Visit"]

SYSTEM = "trio_cmd.Server"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Peer:
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
    """What the record says of a connection."""

    __slots__ = (
        *("began", "bytes_in", "bytes_out", "is_begun", "is_counted", "is_recorded"),
        *("has_place", "reason", "requests", "session", "tls"),
        "__weakref__",  # a limiter knows it
    )

    def __init__(self) -> None:
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
        """Record the beginning, once."""
        if self.is_recorded and not self.is_begun:
            self.is_begun = True
            log.bind(system=SYSTEM).record(events.CLIENT_CONNECTED)

    def end(self, log: EventLogger) -> None:
        """Record the end; also the beginning, if that has not been said."""
        if not self.is_recorded:
            return
        self.begin(log)
        level, why = lost_event(self.reason or "crashed")
        log.record(
            events.CLIENT_LOST,
            level,
            why=why,
            reason=self.reason or "crashed",
            seconds=round(time.monotonic() - self.began, 6),
            requests=self.requests,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            **(self.tls or {}),
        )
