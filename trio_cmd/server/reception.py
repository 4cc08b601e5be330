"""One connection from its acceptance to its end: refused, or let into a conversation; both recorded."""

import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import trio

from trio_cmd.addresses import Address, show_site
from trio_cmd.commands import Surroundings
from trio_cmd.escape import escape
from trio_cmd.records import EventLogger, events
from trio_cmd.records.events import record_fault
from trio_cmd.server.access import Visitor
from trio_cmd.server.acquaintances import Acquaintances
from trio_cmd.server.admission import Admission
from trio_cmd.server.attempts import WrongTokens
from trio_cmd.server.deadlines import Sweeper
from trio_cmd.server.epoch import Epoch
from trio_cmd.server.flooding import Flooding
from trio_cmd.server.handshakes import TlsDoor
from trio_cmd.server.identity import ClientIdentity
from trio_cmd.server.lobby import Lobby
from trio_cmd.server.session import Session
from trio_cmd.server.tls import peer_names
from trio_cmd.server.unix_socket import peer_credentials
from trio_cmd.server.visit import SYSTEM, Peer, Visit
from trio_cmd.wire.messages import NOTICES
from trio_cmd.wire.socket_options import set_tcp_options
from trio_cmd.wire.stream import ClientStream, SocketStream
from trio_cmd.wire.tls import HandshakeFailed, TlsStream

__all__ = ["Reception"]

# What can come of a connection, but that it is refused; all are shown from the start.
RESULTS = ("admitted", "reset", "tls-failed", "stopping")


class Reception:
    """Receives connections.

    Args:
        epoch: the settings in force, who may connect, what each may ask; see ``renew``.
        log: records what happens.
        admission: the places for clients.
        sweeper: keeps their deadlines.
        flooding: decides which refusals are recorded by themselves.
        is_stopping: tells whether the server stops.

    Attributes:
        epoch: the settings in force and all that is made of them.
        sessions: that go on.
        results: what came of the connections that were not refused: ``admitted``, or why they had gone.
    """

    def __init__(
        self,
        epoch: Epoch,
        log: EventLogger,
        admission: Admission,
        sweeper: Sweeper,
        flooding: Flooding,
        is_stopping: Callable[[], bool],
    ) -> None:
        self.epoch = epoch
        self._acquaintances = Acquaintances(epoch.access, epoch.tables)
        self._log = log
        self._admission = admission
        self._sweeper = sweeper
        self._flooding = flooding
        self._is_stopping = is_stopping
        self._door = TlsDoor(admission.max_clients)
        self._lobby = Lobby(self._is_held, self._count_free, log.bind(system=SYSTEM))
        self._attempts = WrongTokens()
        self._numbers = itertools.count()
        self.sessions: dict[Session, None] = {}
        self.results: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))

    def renew(self, epoch: Epoch) -> None:
        """Put other settings in force, for whoever comes and for whoever is there, at once."""
        self.epoch = epoch
        self._acquaintances = Acquaintances(epoch.access, epoch.tables)
        self._door.resize(self._admission.max_clients)
        self._door.renew(epoch.access.is_admissible)
        for session in list(self.sessions):
            session.renew(epoch.shared, epoch.access, epoch.tables)

    def stop(self) -> None:
        """Say goodbye to everybody, now or after the answers that are under way."""
        self._door.stop()
        self._lobby.tell()
        for session in list(self.sessions):
            session.stop()

    async def handle(self, socket_stream: trio.SocketStream) -> None:
        """Serve one connection.

        Cancel: the connection is closed, its place free, its end recorded.
        """
        stream, visit = SocketStream(socket_stream), self._look_at(socket_stream)
        try:
            has_room = self._lobby.is_open() or await self._wait(visit)
            try:
                await (self._receive(stream, visit) if has_room else self._turn_away(stream, visit))
            except trio.BrokenResourceError:
                visit.reason = "reset"  # a refused client that did not wait for its answer
            finally:
                self._see_off(visit)
        except* Exception as errors:  # the second net: a fault of ours costs one connection, not the server
            record_fault(visit.log.bind(system=SYSTEM), errors)
        finally:
            stream.close()

    async def _wait(self, visit: Visit) -> bool:
        """Wait in the lobby; the visit begins after that.

        Cancel: there was no visit.
        """
        has_room = await self._lobby.wait()
        visit.began = time.monotonic()
        return has_room

    def _is_held(self) -> bool:
        return self.epoch.shared.sink.is_held() and not self._is_stopping()

    def _count_free(self) -> int:
        return self._admission.max_clients - self._admission.clients

    def _turn_away(self, stream: ClientStream, visit: Visit) -> Awaitable[object]:
        """Refuse a client without a record of its own; see ``_receive``."""
        reason = "too-many-clients"
        self._admission.refused[reason] += 1
        visit.is_counted, visit.is_recorded = True, False  # the lobby sums up
        return self._refuse(stream, visit.peer.address() or "unix", reason, visit.log, visit)

    def _receive(self, stream: ClientStream, visit: Visit) -> Awaitable[object]:
        """Refuse a client or let it in.

        Returns:
            What has to be awaited for that: a function that awaits it would take memory of each
            idle client.
        """
        address = visit.peer.address()
        visit.reason = self._judge(visit, address)
        if address is None:
            return trio.lowlevel.checkpoint()  # noqa: ASYNC105 - the caller awaits it
        if visit.reason is not None:
            return self._refuse(stream, address, visit.reason, visit.log, visit)
        if self._needs_handshake(stream, address):
            return self._shake_hands(stream, address, visit)
        visit.begin(visit.log)
        known = self._acquaintances.judge(visit.peer.host, address).surroundings
        return self._open_session(stream, visit.peer.visitor(), visit.log, visit, known).run()

    def _see_off(self, visit: Visit) -> None:
        """Give back what a client had, and record its end."""
        if visit.session is not None:
            self._close_session(visit.session, visit)
        if visit.has_place:
            self._admission.leave(visit)
        if not visit.is_counted:
            self.results[visit.reason or "crashed"] += 1
        visit.end()

    def _judge(self, visit: Visit, address: Address | None) -> str | None:
        """Give a client a place, or tell why it gets none."""
        if address is None:
            return "reset"
        if not self._acquaintances.judge(visit.peer.host, address).is_admissible:
            reason = "not-allowed"
        elif not self._admission.try_admit(visit, address):
            reason = "too-many-clients"
        else:
            visit.has_place = True
            return None
        self._note_refusal(visit, address, reason)
        return reason

    def _note_refusal(self, visit: Visit, address: Address, reason: str) -> None:
        """Count a refusal; whether it is recorded by itself depends on how many there are."""
        self._admission.refused[reason] += 1
        visit.is_counted = True
        visit.is_recorded = self._flooding.is_recorded(events.CLIENT_REFUSED, show_site(address))

    async def _refuse(
        self, stream: ClientStream, address: Address, reason: str, log: EventLogger, visit: Visit
    ) -> None:
        visit.begin(log)
        if visit.is_recorded:
            notice = NOTICES[reason].format(address=address)
            log.bind(system=SYSTEM).record(events.CLIENT_REFUSED, reason=reason, notice=notice)
        if self._needs_handshake(stream, address):
            await trio.lowlevel.checkpoint()  # it could not read a word
        else:
            visit.bytes_out = await self._admission.refuse(stream, reason, address)

    def _needs_handshake(self, stream: ClientStream, address: Address | None) -> bool:
        return self.epoch.tls is not None and address != "unix" and not isinstance(stream, TlsStream)

    async def _shake_hands(self, stream: ClientStream, address: Address, visit: Visit) -> None:
        """Let a client in by TLS; it is recorded when the handshake is over, or summed up with others."""
        assert self.epoch.tls is not None
        try:
            async with await self._door.open(stream, address, self.epoch.tls) as sealed:
                await self._identify(sealed, address, visit)
        except HandshakeFailed as error:
            visit.reason = "stopping" if self._is_stopping() else "tls-failed"
            visit.tls = {"tls_error": str(error)}
            visit.is_recorded = self._flooding.is_recorded(events.CLIENT_LOST, show_site(address))
        except trio.Cancelled:
            visit.reason = visit.reason or "stopping"  # whoever cancels from outside stops the server
            raise

    async def _identify(self, stream: TlsStream, address: Address, visit: Visit) -> None:
        """Let a client in whose certificate, if it has one, is known."""
        log, visit.tls = visit.log, {"tls": stream.version()}
        names = peer_names(stream.peer_certificate())
        if names:
            visit.tls["certificate"] = escape(", ".join(sorted(names)))
            log = log.bind(certificate=visit.tls["certificate"])
        visitor = Visitor(address, names)
        if self.epoch.access.is_admitted(visitor):
            visit.begin(log)
            session = self._open_session(stream, visitor, log, visit)
            try:
                await session.run()
            finally:
                self._close_session(session, visit)  # before the stream: a closed one cannot be asked
        else:
            visit.reason = "not-allowed"
            self._note_refusal(visit, address, visit.reason)
            await self._refuse(stream, address, visit.reason, log, visit)

    def _open_session(
        self,
        stream: ClientStream,
        visitor: Visitor,
        log: EventLogger,
        visit: Visit,
        known: Surroundings | None = None,
    ) -> Session:
        """Begin the conversation of a client that is let in; ``_close_session`` must follow."""
        access, tables = self.epoch.access, self.epoch.tables
        identity = ClientIdentity(visitor, access, tables, self._attempts, surroundings=known)
        session = visit.session = Session(stream, log, self.epoch.shared, identity)
        self.sessions[session] = None
        self._sweeper.watch(session)
        self.results["admitted"] += 1
        visit.is_counted = True
        if self._is_stopping():  # accepted in the moment of stopping
            session.stop()
        return session

    def _close_session(self, session: Session, visit: Visit) -> None:
        visit.session = None
        self._sweeper.forget(session)
        del self.sessions[session]
        visit.reason, visit.requests = session.reason, session.requests
        visit.bytes_in, visit.bytes_out = session.bytes_in, session.bytes_out

    def _look_at(self, stream: trio.SocketStream) -> Visit:
        """Learn who it is, and bind the record to it."""
        peer, number = self._find_peer(stream.socket), next(self._numbers)
        system = f"CmdProtocol,{number},{peer.host}"
        return Visit(peer, self._log.bind(system=system, connection=number, **peer.fields()))

    def _find_peer(self, sock: trio.socket.SocketType) -> Peer:
        """Learn who is at the other end, and have the kernel find out when it is gone."""
        try:
            name = sock.getpeername()
            if not isinstance(name, tuple):  # a path; to ask for the family would take longer
                return Peer("unix", credentials=peer_credentials(sock))
            set_tcp_options(sock, self.epoch.shared.limits.write_seconds)
        except OSError:  # it is gone already
            return Peer()
        return Peer(*name[:2])
