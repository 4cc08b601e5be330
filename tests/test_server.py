"""The server in this process: listening, admitting, refusing, surviving, stopping."""

import errno
import gc
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import trio

from certificates import Certificates
from conversation import ListSink
from program import reset
from trio_cmd.addresses import parse_address
from trio_cmd.errors import ListenError
from trio_cmd.records import events, make_logger
from trio_cmd.records.render import render_json
from trio_cmd.records.sink import SinkStatistics
from trio_cmd.server import admission, listeners, reception, server, visit
from trio_cmd.server.epoch import Prepared
from trio_cmd.server.server import Server
from trio_cmd.server.session import Session
from trio_cmd.server.systemd import Notifier
from trio_cmd.server.tls import ServerCertificate, read_certificate
from trio_cmd.settings import Grant, Limits, Log, Logging, ServerSettings, Settings, Tls
from trio_cmd.wire.tls import TlsStream
from trio_cmd.work.roots import Roots


class CountingSink(ListSink):
    """Keeps records in a list, and counts them as the real sink does."""

    def statistics(self) -> SinkStatistics:
        return SinkStatistics(len(self.records), 0, 0, is_stalled=False)

    def reopen(self) -> bool:
        return False

    def renew(self, settings: Logging) -> None:
        self.renewed = settings

    async def wait_for(self, action: str, count: int = 1) -> list[dict[str, Any]]:
        while len(self.actions(action)) < count:
            await trio.sleep(0.002)
        return self.actions(action)


class Running:
    """A server that runs, and its port."""

    def __init__(self, settings: Settings, tls: ServerCertificate | None = None) -> None:
        self.sink = CountingSink()
        sink = cast("Any", self.sink)
        self.server = Server(settings, make_logger(sink, render_json), sink, "1.2.3", Roots(("/",)), tls)
        self.port = 0

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


def settings(max_clients: int = 10, **limits: Any) -> Settings:
    return Settings(server=ServerSettings(port=0, max_clients=max_clients), limits=Limits(**limits))


@asynccontextmanager
async def running(of: Settings | None = None, tls: ServerCertificate | None = None) -> AsyncIterator[Running]:
    """Run a server; it is stopped at the end, and all of it bounded in time."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            it = Running(of or settings(), tls)
            it.port = await nursery.start(it.server.serve)
            yield it
            it.server.stop("the end of the test")


async def read_all(client: trio.SocketStream) -> bytes:
    return b"".join([bytes(piece) async for piece in client])


async def test_a_client_over_the_limit_is_refused_aloud() -> None:
    """Whoever is turned away knows why, also when it has already sent commands."""
    async with running(settings(max_clients=1)) as it:
        async with await it.connect() as first, await it.connect() as second:
            await first.send_all(b"ping\n")
            assert await first.receive_some() == b"pong\n"
            await second.send_all(b"ping\n" * 1000)
            with trio.fail_after(1):
                assert await second.receive_some() == b"Too many connections. bye !\n"
        lost = await it.sink.wait_for("client-lost", 2)
        assert {r["reason"] for r in lost} == {"closed", "too-many-clients"}
        (refused,) = it.sink.actions("client-refused")
        assert (refused["event"], refused["reason"], refused["level"]) == (
            "Too many connections. bye !",
            "too-many-clients",
            "warning",
        )
        assert len(it.sink.actions("client-connected")) == 2


@pytest.mark.parametrize("end", ["exit", "reset", "refusal", "crash"])
async def test_a_place_always_comes_back(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server does not fill up with clients that are gone."""
    async with running(settings(max_clients=1)) as it:
        if end == "crash":
            monkeypatch.setattr("trio_cmd.server.session.parse_request", lambda line: 1 / 0)
        first = await it.connect()
        await first.send_all({"exit": b"exit\n", "crash": b"nope\n"}.get(end, b"\n"))
        await it.sink.wait_for("client-connected")
        if end == "refusal":
            async with await it.connect() as second:
                await read_all(second)
        if end == "reset":
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await first.aclose()
        await it.sink.wait_for("client-lost", 2 if end == "refusal" else 1)
        monkeypatch.undo()
        async with await it.connect() as third:
            await third.send_all(b"ping\nexit\n")
            assert await read_all(third) == b"pong\n"


async def test_nobody_looks_at_a_conversation_whose_stream_is_closed(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweeper would ask a descriptor that is none, or another client's, and that would end the server."""
    left: list[tuple[int, int]] = []
    close = TlsStream.aclose

    async def look_and_close(stream: TlsStream) -> None:
        left.append((len(it.server._reception.sessions), len(it.server._sweeper._watches)))
        await close(stream)

    monkeypatch.setattr(TlsStream, "aclose", look_and_close)
    files = Tls(certificate=certificates.server_certificate, key=certificates.server_key)
    async with running(tls=read_certificate(files)) as it, await it.connect() as stream:
        client = trio.SSLStream(stream, certificates.client_context(), server_hostname="localhost")
        await client.send_all(b"ping\n")
        assert await client.receive_some() == b"pong\n"
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()
        await it.sink.wait_for("client-lost")
    assert left == [(0, 0)]


async def test_refusals_that_wait_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused clients that never close take no descriptors beyond a bound."""
    monkeypatch.setattr(admission, "LINGERING_REFUSALS", 1)
    async with running(settings(max_clients=1)) as it, await it.connect():
        await it.sink.wait_for("client-connected")
        refused = [socket.create_connection(("127.0.0.1", it.port)) for _ in range(2)]
        for client in refused:
            client.sendall(b"ping\n")  # unread input is what makes the server wait
        (lost,) = await it.sink.wait_for("client-lost")
        assert lost["connection"] == 2
        for client in refused:
            with client:
                assert client.recv(100) == b"Too many connections. bye !\n"


async def test_refusals_beyond_ten_a_second_are_counted_once_each() -> None:
    """Whoever knocks without end fills neither the record nor its gaps."""
    async with running(settings(max_clients=1)) as it:
        async with await it.connect() as first:
            await first.send_all(b"ping\n")
            await first.receive_some()
            for _ in range(50):
                async with await it.connect() as refused:
                    assert await read_all(refused) == b"Too many connections. bye !\n"
            counts = it.server.status()
            await it.sink.wait_for("events-summed")  # a second later, not only at the end
            async with await it.connect() as again:
                await read_all(again)
        assert counts["refused"] == counts["refused_too-many-clients"] == 50
    recorded = len(it.sink.actions("client-refused"))
    sums = it.sink.actions("events-summed")
    assert 10 < recorded < 50
    assert recorded + sum(record["count"] for record in sums) == 51
    assert {(record["of"], record["client"]) for record in sums} == {("client-refused", "127.0.0.1")}
    assert len(it.sink.actions("client-connected")) == len(it.sink.actions("client-lost")) == recorded + 1


async def test_what_is_left_of_a_flood_is_summed_up_at_the_end() -> None:
    """A server that stops in the middle of a flood tells of all of it."""
    async with running() as it:
        flooding = it.server._flooding
        recorded = [flooding.is_recorded(events.CLIENT_REFUSED, "192.0.2.1") for _ in range(30)]
    sums = [record["count"] for record in it.sink.actions("events-summed")]
    assert (sum(recorded), sums) == (10, [20])
    assert it.sink.records[-1]["system"] == "trio_cmd.Server"


async def test_a_budget_that_is_spent_while_work_waits_for_its_place_stops_it(tmp_path: Path) -> None:
    """Hundreds that were asked while there was room do not all begin."""
    (tmp_path / "log").write_text("a line\n")
    of = Settings(
        server=ServerSettings(port=0),
        limits=Limits(running_programs=1),
        logs={"lab": Log(file=str(tmp_path / "log"))},
    )
    async with running(of) as it, await it.connect() as client:
        async with it.server._workshop._children.place("another"):
            await client.send_all(b"lastlog\n")
            while not it.server._workshop._children.statistics().waiting:
                await trio.sleep(0.002)
            it.server._workshop.budget.bytes += 1 << 30
        answer = await client.receive_some()
        it.server._workshop.budget.bytes -= 1 << 30
    assert answer == b"An error occured : too many answers wait for their readers; try again later\n"


async def test_one_address_gets_only_its_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """One host that goes wild is told so, and leaves places for the others."""
    here = parse_address("192.0.2.1")
    monkeypatch.setattr(visit, "parse_address", lambda host: here)
    of = Settings(
        server=ServerSettings(port=0, max_clients_per_address=2),
        grants=(Grant(name="lab", addresses=("192.0.2.0/24",), commands=("*",)),),
    )
    async with running(of) as it:
        async with await it.connect(), await it.connect() as second:
            await second.send_all(b"ping\n")
            assert await second.receive_some() == b"pong\n"
            async with await it.connect() as third:
                assert await read_all(third) == b"Too many connections. bye !\n"
        await it.sink.wait_for("client-lost", 3)
        async with await it.connect() as fourth:
            await fourth.send_all(b"exit\n")
            assert await read_all(fourth) == b""


async def test_a_refused_client_that_does_not_wait_is_recorded_as_reset() -> None:
    """Resets of refused clients cost nothing but their records."""
    one, two = socket.socketpair()
    reset(two)
    it = Running(settings(max_clients=1))
    it.server._admission.try_admit(object(), "unix")
    await it.server._reception.handle(trio.SocketStream(trio.socket.from_stdlib_socket(one)))
    assert [r["reason"] for r in it.sink.actions("client-lost")] == ["reset"]


async def test_a_client_gone_before_it_is_looked_at_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port scan that resets at once leaves two records and a server that runs."""

    def gone(*_: object) -> None:
        raise OSError(errno.ENOTCONN, "gone")

    async with running() as it:
        monkeypatch.setattr(reception, "set_tcp_options", gone)
        client = socket.create_connection(("127.0.0.1", it.port))
        (connected,) = await it.sink.wait_for("client-connected")
        assert (connected["client"], connected["port"]) == ("unknown", 0)
        reset(client)
        (lost,) = await it.sink.wait_for("client-lost")
        assert lost["reason"] == "reset"


async def test_who_is_cut_before_it_was_let_in_was_never_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is killed while its record is full tells of no client that it had not recorded."""
    it = Running(settings())
    monkeypatch.setattr(it.sink, "is_held", lambda: True)
    one, two = socket.socketpair()
    with two:
        with trio.move_on_after(0) as scope:
            await it.server._reception.handle(trio.SocketStream(trio.socket.from_stdlib_socket(one)))
        assert scope.cancelled_caught
        assert two.recv(1) == b""
    assert it.sink.records == []
    assert not any(it.server._reception.results.values())


async def test_a_client_of_the_unix_socket_is_known_by_its_user(nursery: trio.Nursery) -> None:
    """The wrong tokens of one user of this host keep no other from showing theirs."""
    it = Running(settings())
    one, two = socket.socketpair()
    with two:
        nursery.start_soon(
            it.server._reception.handle, trio.SocketStream(trio.socket.from_stdlib_socket(one))
        )
        await trio.testing.wait_all_tasks_blocked()
        (session,) = it.server._reception.sessions
        assert session.site == ("unix", os.geteuid())


async def test_a_visit_begins_when_it_is_let_in(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    """The duration in the record is that of the conversation, not of a full disk before it."""
    it = Running(settings())
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(it.sink, "is_held", lambda: True)
    one, two = socket.socketpair()
    with two:
        two.sendall(b"exit\n")
        nursery.start_soon(
            it.server._reception.handle, trio.SocketStream(trio.socket.from_stdlib_socket(one))
        )
        await trio.testing.wait_all_tasks_blocked()
        now = 200.0
        monkeypatch.setattr(it.sink, "is_held", lambda: False)
        with trio.fail_after(10):
            (lost,) = await it.sink.wait_for("client-lost")
    assert (lost["reason"], lost["seconds"]) == ("exit", 0.0)


# What clients have sent by the time they are accepted; the last also ends its input.
SENT = [
    b"ping\nexit\n",
    b"ping\nnope\n\xff\xf4help\nping\nexit\nping\n",
    b"ping\n" * 200 + b"exit\n",
    b"GET / HTTP/1.1\n",
    b"\x16\x03\nping\n",
    b"x" * 9000,
    b"",
    b"ping\npin",
]


def forget_time(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("timestamp", "seconds", "port")}


@pytest.mark.parametrize("sent", SENT, ids=range(len(SENT)))
async def test_whether_a_question_is_there_already_changes_nothing_but_time(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first read is tried at once; what is answered and recorded is that of waiting for it."""
    heard, told = [], []
    for is_waited_for in (False, True):
        async with running() as it:
            if is_waited_for:
                monkeypatch.setattr(Session, "_begin", lambda session: True)
            client = socket.create_connection(("127.0.0.1", it.port))  # nobody else runs meanwhile
            client.sendall(sent)
            if not sent.endswith(b"exit\n"):
                client.shutdown(socket.SHUT_WR)
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
            heard.append(await read_all(stream))
            await stream.aclose()
            await it.sink.wait_for("client-lost")
            told.append([forget_time(r) for r in it.sink.records if "connection" in r])
    assert heard[0] == heard[1]
    assert told[0] == told[1]


async def test_others_have_their_turn_after_the_first_of_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has sent thousands of lines by the time it is accepted delays nobody."""
    passes: list[str] = []
    take_turn = Session._turn

    def note(session: Session) -> None:
        passes.append("turn")
        take_turn(session)

    async def run_beside() -> None:
        while True:
            passes.append("other")
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Session, "_turn", note)
    async with running() as it, trio.open_nursery() as nursery:
        client = socket.create_connection(("127.0.0.1", it.port))
        client.sendall(b"ping\n" * 200 + b"exit\n")
        nursery.start_soon(run_beside)
        async with trio.SocketStream(trio.socket.from_stdlib_socket(client)) as stream:
            assert await read_all(stream) == b"pong\n" * 200
        nursery.cancel_scope.cancel()
    assert passes.count("turn") >= 4
    assert "turn turn turn" not in " ".join(passes)  # two: the last of a pass, the first of the next


def count_sessions() -> int:
    return sum(type(one) is Session for one in gc.get_objects())


@pytest.mark.parametrize("is_slow", [False, True])
async def test_a_client_that_has_left_needs_no_garbage_collector(is_slow: bool) -> None:
    """A thousand visits a second do not hold up the others while Python looks for what is unused."""
    gc.collect()
    before = count_sessions()
    gc.disable()
    try:
        async with running() as it:
            async with await it.connect() as client:
                if is_slow:
                    await client.send_all(b"ping\n")
                    assert await client.receive_some() == b"pong\n"
                await client.send_all(b"ping\nexit\n")
                assert await read_all(client) == b"pong\n"
            await it.sink.wait_for("client-lost")
            await trio.testing.wait_all_tasks_blocked()
            assert count_sessions() == before
    finally:
        gc.enable()


async def test_a_handler_closes_its_connection_itself() -> None:
    """Nothing of Trio's stands around it for as long as the client stays."""
    served: list[object] = []

    async def serve(*args: object) -> None:
        served.append(args)

    async with trio.open_nursery() as nursery:
        handlers = listeners.Handlers(nursery)
        with trio.socket.socket() as sock:
            stream = trio.SocketStream(sock)
            handlers.start_soon(cast("Any", None), stream, serve)
        handlers.start_soon(serve, "another", "way", "of Trio")
    assert served in ([(stream,), ("another", "way", "of Trio")], [("another", "way", "of Trio"), (stream,)])


async def test_a_fault_before_the_conversation_costs_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bug of ours outside the conversation stops the server either."""
    async with running() as it:
        with monkeypatch.context() as patch:
            patch.setattr(it.server._admission, "try_admit", lambda *_: 1 / 0)
            async with await it.connect() as client:
                assert await read_all(client) == b""
        (crash,) = it.sink.actions("handler-crashed")
        assert "ZeroDivisionError" in crash["exception"]
        assert it.sink.actions("client-lost")[0]["reason"] == "crashed"
        async with await it.connect() as client:
            await client.send_all(b"ping\nexit\n")
            assert await read_all(client) == b"pong\n"


async def test_stopping_tells_the_idle_and_lets_nobody_in() -> None:
    """A client learns why it is closed, and the next is refused by the kernel."""
    async with running() as it:
        async with await it.connect() as client:
            await client.send_all(b"ping\n")
            assert await client.receive_some() == b"pong\n"
            it.server.stop("SIGTERM")
            it.server.stop("again")
            assert await read_all(client) == b"Server is stopping. bye !\n"
        with pytest.raises(OSError, match="failed"):
            await it.connect()
    (stopping,) = it.sink.actions("stopping")
    assert (stopping["event"], stopping["reason"]) == (f"(TCP Port {it.port} Closed)", "SIGTERM")
    assert it.sink.actions("client-lost")[0]["reason"] == "stopping"


async def test_a_client_accepted_in_the_moment_of_stopping_is_told_too() -> None:
    """No client is forgotten between the last listener and the last goodbye."""
    it = Running(settings())
    it.server.stop("SIGTERM")
    client, end = (trio.SocketStream(trio.socket.from_stdlib_socket(one)) for one in socket.socketpair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.server._reception.handle, end)
        assert await read_all(client) == b"Server is stopping. bye !\n"
        await client.aclose()


async def test_work_is_cancelled_when_the_time_to_stop_has_passed(tmp_path: Path) -> None:
    """A hash of an hour does not hold a restart; its asker is told."""
    async with running(settings(stop_seconds=0.1)) as it:
        async with await it.connect() as client:
            endless = tmp_path / "endless"
            with endless.open("wb") as file:
                file.truncate(60 << 30)  # sparse: half a minute of hashing
            await client.send_all(b"comphash %s\n" % bytes(endless))
            await it.sink.wait_for("command-received")
            it.server.stop("SIGTERM")
            answer = await read_all(client)
        assert answer == (
            b"An error occured : server is stopping; ask again when it is back\nServer is stopping. bye !\n"
        )
    assert it.sink.actions("command-completed")[0]["outcome"] == "stopping"
    assert it.sink.actions("client-lost")[0]["reason"] == "stopping"


def test_how_long_the_last_records_may_take_depends_on_how_long_stopping_took() -> None:
    """All of stopping stays within its bound."""
    it = Running(settings(stop_seconds=10))
    assert it.server.seconds_left(2) == 2
    it.server.stop("SIGTERM")
    assert it.server.seconds_left(2) == 2
    it.server._stop_by -= 100
    assert it.server.seconds_left(2) == server.MIN_FLUSH_SECONDS


async def test_a_port_that_is_taken_is_said_with_a_remedy() -> None:
    """Two servers on one port are told apart at the start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        it = Running(Settings(server=ServerSettings(port=port)))
        with pytest.RaisesGroup(
            pytest.RaisesExc(ListenError, match=rf"port {port}: Address already in use; stop what uses it"),
            flatten_subgroups=True,
        ):
            await it.server.serve()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EACCES, "Permission denied; choose a port above 1023 with --port"),
        (errno.EADDRNOTAVAIL, "Cannot assign requested address; this host has no such address"),
        (errno.EAFNOSUPPORT, "no IPv6 here; choose another address with --host and --port"),
    ],
)
def test_other_reasons_not_to_listen_have_their_remedies(number: int, text: str) -> None:
    """The line says what to do instead."""
    message = listeners.explain(OSError(number, "no IPv6 here"), "::1", 80)
    assert message.startswith("cannot listen on ::1 port 80: ")
    assert text in message


async def test_fewer_clients_than_asked_for_are_said_in_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator learns why the limit is not the one in the settings."""
    monkeypatch.setattr(server, "fit_descriptors", lambda settings, work: 7)
    async with running() as it:
        said = [record["event"] for record in it.sink.actions("message")]
        assert any("max_clients lowered to 7" in event for event in said)
        assert it.sink.actions("server-started")[0]["max_clients"] == 7


@pytest.mark.parametrize("uid", [0, 1000])
async def test_root_is_warned_in_the_record(uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who starts it as root by habit reads what to do instead; nobody else is bothered."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    async with running() as it:
        said = [record for record in it.sink.actions("message") if "running as root" in record["event"]]
    assert [record["level"] for record in said] == (["warning"] if uid == 0 else [])


async def test_status_tells_what_the_server_counts() -> None:
    """Monitoring reads the same counts as the operator."""
    async with running() as it:
        async with await it.connect() as client:
            await client.send_all(b"ping\ntest\n")
            await client.receive_some()
            counts = it.server.status()
        assert counts["version"] == "1.2.3"
        assert counts["clients"] == 1
        assert counts["max_clients"] == 10
        assert counts["commands_ok"] == counts["commands_unknown-command"] == 1
        assert counts["records_lost"] == 0


async def test_a_server_that_was_given_nothing_to_read_refuses_to_reload() -> None:
    """Whoever embeds it without a file is told so in the record."""
    async with running() as it:
        it.server.reload()
        (record,) = await it.sink.wait_for("reload-refused")
        assert record["reason"] == "there is nothing to read them from"
        last = it.server.last_reload
        assert not last.succeeded
        it.server.stop("test")
        it.server.reload()
        await it.sink.wait_for("stopping")
    assert len(it.sink.actions("reload-refused")) == 1


async def test_other_settings_reach_whatever_is_limited() -> None:
    """A reload that forgets one limit would be found out under load."""
    async with running(settings(100)) as it:
        others = settings(400, followers=3, idle_seconds=2)
        others = msgspec.structs.replace(others, logging=Logging(queue_events=5000))
        it.server._renew(Prepared(others, Roots(("/",))))
        assert it.sink.renewed.queue_events == 5000
        counts = it.server.status()
        assert (counts["max_clients"], counts["max_followers"]) == (400, 3)
        assert it.server._reception._door._handshakes.max_in_all == 100
        assert it.server._sweeper.tick_seconds == 0.1


async def test_a_stop_in_the_middle_of_a_reload_is_not_followed_by_ready() -> None:
    """Systemd would take a server that ends for one that has come up again."""
    told: list[str] = []
    disk, is_read = threading.Event(), trio.Event()

    class Told(Notifier):
        def ready(self, status: str) -> None:
            told.append("ready")

        def reloading(self) -> None:
            told.append("reloading")
            is_read.set()

        def stopping(self, status: str) -> None:
            told.append("stopping")

    async with running() as it:
        it.server._reloading._read = lambda in_force: disk.wait(20)  # type: ignore[assignment, return-value]  # raises
        it.server._reloading._began = Told({}, it.server._log).reloading
        it.server._notifier = Told({}, it.server._log)
        it.server.reload()
        await is_read.wait()
    disk.set()
    assert told == ["reloading", "stopping"]
