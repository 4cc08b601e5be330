"""The metrics: what is served over HTTP, to whom, and that it agrees with the record."""

import http.client
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from certificates import Certificates
from conftest import StartProgram
from conversation import ListSink
from program import PATIENCE_SECONDS, Program, Record, free_port, reset, wait_until
from trio_cmd import cli
from trio_cmd.errors import ListenError, SettingsError
from trio_cmd.records import make_logger
from trio_cmd.records.render import render_json
from trio_cmd.server import metrics
from trio_cmd.server.access import Access
from trio_cmd.server.metrics import MAX_HEAD_BYTES, MAX_SCRAPES, MetricsServer, judge_request
from trio_cmd.settings import Grant, Layer, Metrics, load

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read_series(body: bytes) -> Series:
    """Take every sample of a body: its name and labels -> its value; none may be there twice."""
    samples = [
        sample for family in text_string_to_metric_families(body.decode()) for sample in family.samples
    ]
    series = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(series) == len(samples)
    return series


def value(series: Series, name: str, **labels: str) -> float:
    """Take the value of one series, ``trio_cmd_NAME``."""
    return series[f"trio_cmd_{name}", frozenset(labels.items())]


def scrape(port: int) -> Series:
    """Ask as Prometheus does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.status == 200
    return read_series(answer.read())


# A request


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (GET, 200),
        (b"GET /metrics HTTP/1.0\n\n", 200),
        (b"GET /metrics?name=x HTTP/1.1\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/ HTTP/1.1\r\n\r\n", 404),
        (b"GET //metrics HTTP/1.1\r\n\r\n", 404),
        (b"GET /%6detrics HTTP/1.1\r\n\r\n", 404),
        (b"GET http://host/metrics HTTP/1.1\r\n\r\n", 404),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", 405),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"get /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /metrics HTTP/1.1\r\n", 400),
        (b"GET /metrics HTTP/2.0\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"ping\n\n", 400),
    ],
)
def test_only_a_get_of_the_metrics_is_served(head: bytes, status: int) -> None:
    """There is one thing to have, and whoever asks for another is told."""
    assert judge_request(head) == status


@given(st.binary(max_size=300))
def test_any_bytes_have_an_answer(head: bytes) -> None:
    """No scrape can crash what serves it."""
    assert judge_request(head) in (200, 400, 404, 405)


# Serving


class Scraped:
    """What answers scrapes, by itself, with a fixed body."""

    def __init__(self, *grants: Grant) -> None:
        self.sink = ListSink()
        self.port = free_port()
        log = make_logger(self.sink, render_json)
        self.server = MetricsServer(
            Metrics(port=self.port), Access(grants).may_scrape, lambda: b"body\n", log
        )

    async def connect(self, address: str = "127.0.0.1") -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port, local_address=address)

    async def ask(self, data: bytes, address: str = "127.0.0.1") -> bytes:
        async with await self.connect(address) as client:
            await client.send_all(data)
            return await read_all(client)


async def read_all(client: trio.SocketStream) -> bytes:
    return b"".join([bytes(piece) async for piece in client])


@asynccontextmanager
async def scraped(*grants: Grant) -> AsyncIterator[Scraped]:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            it = Scraped(*grants)
            await nursery.start(it.server.run)
            yield it
            nursery.cancel_scope.cancel()


async def test_a_scrape_gets_the_body_and_the_end() -> None:
    """Prometheus reads a whole answer, also when it comes in pieces."""
    async with scraped() as it, await it.connect() as client:
        for place in range(len(GET)):
            await client.send_all(GET[place : place + 1])
        head, _, body = (await read_all(client)).partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/plain; version=0.0.4; charset=utf-8",
        b"Content-Length: 5",
        b"Connection: close",
    ]
    assert body == b"body\n"
    assert [record["action"] for record in it.sink.records] == ["listening"]


@pytest.mark.parametrize(
    ("request_head", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n"),
        (b"PUT /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed\r\n"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES, b"HTTP/1.1 400 Bad Request\r\n"),
    ],
)
async def test_what_is_not_served_is_refused_in_a_few_words(request_head: bytes, answer: bytes) -> None:
    """Who looks with a browser, or sends a head without end, is told what there is."""
    async with scraped() as it:
        told = await it.ask(request_head)
    assert told.startswith(answer)
    assert told.endswith(b"; this is for Prometheus: GET /metrics\n")
    assert (b"\r\nAllow: GET\r\n" in told) is (b" 405 " in told)


async def test_a_head_request_gets_no_body() -> None:
    """Where HTTP forbids a body there is none."""
    async with scraped() as it:
        assert (await it.ask(b"HEAD /metrics HTTP/1.1\r\n\r\n")).endswith(b"\r\nAllow: GET\r\n\r\n")


async def test_whoever_says_nothing_gets_nothing() -> None:
    """A check that only connects is no fault of anybody."""
    async with scraped() as it:
        async with await it.connect() as client:
            await client.send_eof()
            assert await read_all(client) == b""
        async with await it.connect() as client:  # and one that resets
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert b"200 OK" in await it.ask(GET)
    assert not it.sink.actions("handler-crashed")


async def test_four_at_once_and_the_next_is_told() -> None:
    """Who connects again and again takes neither memory nor descriptors."""
    async with scraped() as it:
        held = [await it.connect() for _ in range(MAX_SCRAPES)]
        for client in held:
            await client.send_all(GET[:-1])
        while it.server._places.borrowed_tokens < MAX_SCRAPES:
            await trio.sleep(0.002)
        told = await it.ask(GET)
        assert told.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert told.endswith(b"\r\n\r\nToo many connections. bye !\n")
        for client in held:
            await client.send_all(GET[-1:])
            assert b"200 OK" in await read_all(client)
            await client.aclose()
        assert b"200 OK" in await it.ask(GET)


async def test_refusals_that_linger_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond them a refused one is closed at once, and takes nothing with it."""
    monkeypatch.setattr(metrics, "MAX_SCRAPES", 1)
    monkeypatch.setattr(metrics, "LINGERING_REFUSALS", 1)
    monkeypatch.setattr(metrics, "LINGER_SECONDS", 30)
    async with scraped() as it, await it.connect(), await it.connect() as lingering:
        assert (await lingering.receive_some()).startswith(b"HTTP/1.1 503 ")
        async with await it.connect() as client:
            assert (await read_all(client)).startswith(b"HTTP/1.1 503 ")
        assert it.server._lingering.borrowed_tokens == 1


async def test_a_scrape_that_lasts_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four silent clients do not keep Prometheus out for longer than a few seconds."""
    assert metrics.SECONDS_PER_SCRAPE == 5
    monkeypatch.setattr(metrics, "SECONDS_PER_SCRAPE", 0.05)
    async with scraped() as it, await it.connect() as client:
        await client.send_all(GET[:-1])
        with trio.fail_after(5):
            assert await read_all(client) == b""


async def test_a_fault_of_ours_costs_one_scrape() -> None:
    """The server lives, and the record says where it was."""
    async with scraped() as it:
        it.server._render = lambda: cast("bytes", 1 / 0)
        assert await it.ask(GET) == b""
        it.server._render = lambda: b"again\n"
        assert (await it.ask(GET)).endswith(b"again\n")
    (crashed,) = it.sink.actions("handler-crashed")
    assert "ZeroDivisionError" in crashed["exception"]


async def test_an_address_that_is_taken_is_said_with_its_keys() -> None:
    """The start ends with exit code 71 and the name of what to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Metrics(port=taken.getsockname()[1])
        server = MetricsServer(settings, Access(()).may_scrape, bytes, make_logger(ListSink(), render_json))
        with pytest.RaisesGroup(
            pytest.RaisesExc(ListenError, match=r"choose another port with metrics\.port")
        ):
            await server.run()


# Who may scrape

LISTED = Grant(name="prometheus", addresses=("127.0.0.8/30",), commands=("metrics",))
LOCAL = Grant(name="local", commands=("metrics", "ping"))
OTHER = Grant(name="other", addresses=("127.0.0.1",), commands=("*",))
HIDDEN = Grant(name="hidden", addresses=("127.0.0.1",), commands=("metrics",), token_sha256="0" * 64)


@pytest.mark.parametrize(
    ("grants", "allowed"),
    [
        ((), {"127.0.0.1", "127.0.0.9"}),
        ((OTHER,), {"127.0.0.1", "127.0.0.9"}),
        ((LOCAL,), {"127.0.0.1", "127.0.0.9"}),
        ((LISTED,), {"127.0.0.9"}),
        ((LISTED, OTHER), {"127.0.0.9"}),
        ((LISTED, HIDDEN), {"127.0.0.9"}),
        ((LISTED, LOCAL), {"127.0.0.1", "127.0.0.9"}),
    ],
)
async def test_whoever_is_listed_may_scrape(grants: tuple[Grant, ...], allowed: set[str]) -> None:
    """Where no grant lists metrics this host may have them; where one does, only its addresses."""
    async with scraped(*grants) as it:
        for address in ("127.0.0.1", "127.0.0.9"):
            told = await it.ask(GET, address)
            assert (b"200 OK" in told) is (address in allowed)
            if address not in allowed:
                assert told.startswith(b"HTTP/1.1 403 Forbidden\r\n")
                assert told.endswith(f"\r\n\r\nNot allowed from {address}. bye !\n".encode())
    refused = {record["client"] for record in it.sink.actions("client-refused")}
    assert refused == {"127.0.0.1", "127.0.0.9"} - allowed
    assert {record["system"] for record in it.sink.records} == {"trio_cmd.Metrics"}


async def test_refused_scrapes_are_summed_up() -> None:
    """A scraper with the wrong address does not flood the record, and each refusal is counted."""
    async with scraped(LISTED) as it:
        for _ in range(25):
            assert b"403 Forbidden" in await it.ask(GET)
    sums = [record["count"] for record in it.sink.actions("events-summed")]
    assert len(it.sink.actions("client-refused")) + sum(sums) == 25
    assert sums


# Settings


def faults(values: Mapping[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load([Layer("t.toml", values)], ["ping"])
    return caught.value.faults


def grant(**values: Any) -> Mapping[str, Any]:
    return {"name": "prometheus", "commands": ["metrics"], **values}


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "::", "10.0.0.1"])
def test_exposing_the_metrics_is_said_aloud(host: str) -> None:
    """Nobody shows how busy a host is by one slip of the pen."""
    exposed = {"metrics": {"port": 9998, "host": host}}
    said = (
        f"metrics.host: {host} can be reached from other hosts; say which ones may scrape:"
        " [[grants]] with addresses and metrics in its commands"
    )
    assert faults(exposed) == [said]
    assert faults({**exposed, "grants": [grant()]}) == [said]  # names no address
    everything = grant(addresses=["10.0.0.0/8"], commands=["*"])
    assert faults({**exposed, "grants": [everything]}) == [said]  # metrics are no command
    named = grant(addresses=["10.0.0.0/8"])
    assert load([Layer("t.toml", {**exposed, "grants": [named]})]).metrics.host == host


def test_nothing_is_exposed_while_the_port_is_0() -> None:
    """A host that is prepared is not yet one that is open."""
    assert load([Layer("t.toml", {"metrics": {"host": "*"}})]).metrics == Metrics(host="*")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_the_loopback_needs_no_grant(host: str) -> None:
    """Where only this host can come, the port is enough."""
    assert load([Layer("t.toml", {"metrics": {"port": 9998, "host": host}})]).metrics.host == host


@pytest.mark.parametrize("host", ["", "example.org", "10.0.0.0/8"])
def test_a_host_that_is_no_address_is_refused(host: str) -> None:
    """No name is looked up."""
    (fault,) = faults({"metrics": {"host": host}})
    assert fault == 't.toml: metrics.host: expected an address of this host, or "*" for all'


def test_a_grant_that_a_scrape_cannot_fulfil_is_refused() -> None:
    """Prometheus sends neither our token nor our certificate: that is said before it comes."""
    (fault,) = faults({"grants": [grant(token_sha256="0" * 64)]})
    assert fault == (
        "grants.prometheus.commands: a scrape shows no token and no certificate;"
        " list metrics in a grant without them"
    )
    certificate = {
        "grants": [grant(certificate="lab")],
        "tls": {"client_ca": "/ca", "certificate": "/c", "key": "/k"},
    }
    assert faults(certificate) == [fault]


@pytest.mark.parametrize("name", ["metrics", "unknown"])
def test_no_program_has_a_name_of_the_metrics(name: str) -> None:
    """A grant that lists metrics means one thing, and so does each series."""
    (fault,) = faults({"programs": {name: {"argv": ["/bin/true"]}}})
    assert f"programs.{name}: this name is taken; choose another" in fault


def test_nobody_can_be_granted_what_is_no_command() -> None:
    """A name that only the metrics have is a mistake in a grant."""
    (fault,) = faults({"grants": [grant(commands=["unknown"])]})
    assert "unknown" in fault


def test_without_the_library_the_start_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, write_settings: Callable[[str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    """One line says what to install, before anybody is served."""
    config = write_settings("[metrics]\nport = 9998\n")
    assert cli.main(["--check-config", "--config", config], {}) == 0
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert cli.main(["--check-config", "--config", config], {}) == 78
    assert cli.main(["--check-config"], {}) == 0
    assert capfd.readouterr().err == (
        "metrics.port: needs the library prometheus-client;"
        " pip install 'trio-cmd[metrics]', or set metrics.port = 0\n"
    )


# The whole program


def commands_of(series: Series, what: str = "commands_total") -> dict[tuple[str, str], float]:
    found = {}
    for (name, labels), count in series.items():
        if name == f"trio_cmd_{what}" and count:
            named = dict(labels)
            found[named["command"], named["outcome"]] = count
    return found


def completed(records: list[Record]) -> Counter[tuple[str, str]]:
    """Count the commands in the record as the metrics do."""
    known = {"ping", "status", "comphash", "lastlog", "help"}
    return Counter(
        (r["command"] if r["command"] in known else "unknown", r["outcome"])
        for r in records
        if r["action"] == "command-completed"
    )


@pytest.fixture
def scrapeable(
    start: StartProgram, write_settings: Callable[[str], str], tmp_path: Any
) -> tuple[Program, int]:
    """A program with metrics, and their port; one client at a time."""
    port = free_port()
    (tmp_path / "syslog").write_text("one line\n")
    logs = f'[logs]\nsyslog = {{ file = "{tmp_path}/syslog" }}\n'
    config = write_settings(f"{logs}[server]\nmax_clients = 1\n[metrics]\nport = {port}\n")
    program = start("--config", config)
    program.wait_for("listening", system="trio_cmd.Metrics")
    return program, port


def test_what_is_scraped_agrees_with_the_record_and_the_load(
    scrapeable: tuple[Program, int], tmp_path: Any
) -> None:
    """A number on the operator's screen is a number of lines in the record."""
    program, port = scrapeable
    file = tmp_path / "file"
    file.write_bytes(b"x" * 12345)
    at_first = scrape(port)
    assert commands_of(at_first) == {}
    assert value(at_first, "commands_total", command="ping", outcome="internal") == 0  # for the rules
    program.ask(b"ping\n" * 7 + b"nope\n\x01\nhelp\nlastlog\ncomphash %b\ncomphash\n" % bytes(file))
    program.wait_for("client-lost", reason="closed")
    with program.connect() as first:
        first.sendall(b"ping\n")
        assert first.recv(10) == b"pong\n"
        assert program.ask(b"") == b"Too many connections. bye !\n"
        series = scrape(port)  # it takes no place of theirs
    program.wait_until(lambda r: r["action"] == "client-lost" and r["requests"] == 1)
    assert (
        commands_of(series)
        == completed(program.records)
        == {
            ("ping", "ok"): 8,
            ("unknown", "unknown-command"): 1,
            ("unknown", "bad-encoding"): 1,
            ("help", "ok"): 1,
            ("lastlog", "ok"): 1,
            ("comphash", "ok"): 1,
            ("comphash", "bad-arguments"): 1,
        }
    )
    assert value(series, "connections_total", result="admitted") == 2
    assert value(series, "connections_total", result="too-many-clients") == 1
    assert value(series, "connections_total", result="not-allowed") == 0
    assert value(series, "connections_active") == 1
    assert value(series, "hashed_bytes_total") == 12345
    assert value(series, "command_seconds_count", command="ping") == 8
    assert value(series, "command_seconds_bucket", command="ping", le="+Inf") == 8
    spent = sum(r["seconds"] for r in program.actions("command-completed") if r["command"] == "comphash")
    assert value(series, "command_seconds_sum", command="comphash") == pytest.approx(spent, abs=1e-5)
    assert value(series, "events_lost_total") == value(series, "shared_total") == 0
    assert value(series, "reload_success") == 1
    assert value(series, "build_info", version=program.wait_for("log-opened")["version"]) == 1
    for kind in ("hashing", "children", "followers", "hung"):
        assert value(series, "running", kind=kind) == 0
    for kind in ("hashing", "children"):
        assert value(series, "waiting", kind=kind) == 0


def test_nothing_a_client_sends_makes_a_series(scrapeable: tuple[Program, int]) -> None:
    """No client can fill the memory of the operator's Prometheus."""
    program, port = scrapeable
    program.ask(b"nope\n")
    wait_until(lambda: value(scrape(port), "connections_active") == 0, "the place is free")
    before = set(scrape(port))
    words = [b"word%d" % n for n in range(19)]
    program.ask(b"".join(word + b"\n" for word in words))
    wait_until(lambda: value(scrape(port), "connections_active") == 0, "the place is free")
    after = scrape(port)
    assert set(after) == before
    assert value(after, "commands_total", command="unknown", outcome="unknown-command") == 20


def test_the_metrics_are_served_until_the_last_client_has_left(
    start: StartProgram, write_settings: Callable[[str], str]
) -> None:
    """A server that takes long to stop can be watched meanwhile, and then its port is free."""
    port = free_port()
    sleep = f'[programs.sleep]\nargv = ["/bin/sleep", "{PATIENCE_SECONDS}"]\n'
    limits = f"[limits]\nstop_seconds = {PATIENCE_SECONDS}\n"
    program = start("--config", write_settings(f"{sleep}{limits}[metrics]\nport = {port}\n"))
    with program.connect() as client:
        client.sendall(b"sleep\n")
        program.wait_for("command-received")
        program.process.terminate()
        program.wait_for("stopping")
        assert value(scrape(port), "connections_active") == 1
        reset(client)
    assert program.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_shared_answers_and_events_lost_are_counted(scrapeable: tuple[Program, int]) -> None:
    """What the record says of each is what the metrics say of all."""
    program, port = scrapeable
    program.ask(b"lastlog 1\n" * 20)
    program.wait_for("client-lost")
    shared = [r["shared"] for r in program.actions("command-completed")]
    assert value(scrape(port), "shared_total") == sum(shared) > 0


def test_each_connection_has_one_result(
    start: StartProgram, write_settings: Callable[[str], str], certificates: Certificates
) -> None:
    """The results add up to the connections there were: nobody came unseen."""
    port = free_port()
    grants = '[[grants]]\nname = "lab"\ncertificate = "client.lab"\ncommands = ["ping"]\n'
    config = write_settings(f"{certificates.settings(client_ca=True)}[metrics]\nport = {port}\n{grants}")
    program = start("--config", config)
    program.wait_for("listening", system="trio_cmd.Metrics")
    elsewhere = certificates.issue("elsewhere", "elsewhere.lab")
    for certificate, answer in ((certificates.client, b"pong\n"), (elsewhere, b"Not allowed from")):
        context = certificates.client_context(certificate)
        with context.wrap_socket(program.connect(), server_hostname="localhost") as client:
            client.sendall(b"ping\nexit\n")
            assert client.recv(100).startswith(answer)
    program.ask(b"ping\n")  # without TLS
    reset(program.connect())
    for number in range(4):
        program.wait_for("client-lost", connection=number)
    results = {
        dict(labels)["result"]: count
        for (name, labels), count in scrape(port).items()
        if name == "trio_cmd_connections_total"
    }
    gone = results.pop("reset") + results.pop("tls-failed")
    assert gone == 2  # the one that reset may have been seen in the handshake or before
    assert results == {"admitted": 1, "not-allowed": 1, "too-many-clients": 0, "stopping": 0}
