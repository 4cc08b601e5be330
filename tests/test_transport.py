"""The way to a host: names, addresses, sockets, TLS; and what is said when it ends before the host."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from bad_hosts import BadHost, Behaviour, stay_silent
from certificates import DAY, NOW, Certificates
from program import PATIENCE_SECONDS, Program, count_descriptors, free_port
from sayings import greet, saying
from trio_cmd.client import AskError, ConnectionLost, Host, TlsFailed, Unreachable, connect, transport

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


async def failure(
    host: Host | str, tls: ssl.SSLContext | None = None, seconds: float = PATIENCE_SECONDS
) -> AskError:
    """Try to ask a host; returns why that is not possible."""
    try:
        async with connect(host, tls=tls, connect_seconds=seconds) as server:
            await server.ask("ping")
    except AskError as error:
        return error
    raise AssertionError("it answers")


async def pong(host: Host | str, tls: ssl.SSLContext | None = None) -> bool:
    """Ask a host whether it is there."""
    async with connect(host, tls=tls, connect_seconds=PATIENCE_SECONDS) as server:
        return bool((await server.ask("ping")).result["pong"])


@pytest.fixture(scope="module")
def start_with(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Program]]:
    """Start a program for all tests of this module, with the text of its settings."""
    with contextlib.ExitStack() as stack:

        def start(text: str, *args: str) -> Program:
            path = tmp_path_factory.mktemp("settings") / "trio-cmd.toml"
            path.write_text(text)
            path.chmod(0o600)
            return stack.enter_context(Program("--config", str(path), *args))

        yield start


@pytest.fixture(scope="module")
def sealed(start_with: Callable[[str], Program], certificates: Certificates) -> Program:
    """A server that speaks TLS."""
    return start_with(certificates.settings())


@pytest.fixture(scope="module")
def strict(start_with: Callable[[str], Program], certificates: Certificates) -> Program:
    """A server that wants a certificate."""
    return start_with(certificates.settings(client_ca=True))


@pytest.fixture(scope="module")
def plain(start_with: Callable[..., Program]) -> Program:
    """A server without TLS."""
    return start_with("")


# Names and addresses


async def test_a_name_that_cannot_be_found_costs_its_host_one_line() -> None:
    """A typing error is found at a glance among a thousand hosts, also where there is no name server."""
    error = await failure("no-such-host.invalid")
    assert isinstance(error, Unreachable)
    assert error.message.startswith(("no host has this name: ", "the name servers do not answer: "))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (socket.EAI_NONAME, "no host has this name: words"),
        (socket.EAI_AGAIN, "the name servers do not answer: words; try again, or give the address"),
        (socket.EAI_FAIL, "the name servers do not answer: words; try again, or give the address"),
    ],
)
async def test_a_name_server_that_is_down_is_told_from_a_wrong_name(
    number: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looks for a slip in a name that is right."""

    def look_up(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(number, "words")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    error = await failure("web1.example")
    assert (error.code, error.message) == ("unreachable", message)


@pytest.mark.parametrize("name", ["a" * 64 + ".example", "a..example", "a\0b"])
async def test_what_cannot_be_a_name_is_no_fault_of_ours(name: str) -> None:
    """One bad line in a list of hosts costs one line of output."""
    assert (await failure(Host("bad", name))).message.startswith("no host has this name: ")


async def test_nobody_listening_is_said_in_words() -> None:
    """What is missing is the server, not the host."""
    error = await failure(f"127.0.0.1:{free_port()}")
    assert isinstance(error, Unreachable)
    assert error.message == "nobody listens there (Connection refused)"


async def test_the_other_family_is_tried_when_one_is_refused(
    plain: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name has often both kinds of addresses, and the server listens on one of them."""
    targets = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", plain.port, 0, 0))]
    targets += inet(("127.0.0.1", plain.port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: targets)
    assert await pong(Host("both", "both.example", plain.port))


async def test_the_next_address_is_tried_when_one_is_silent(plain: Program) -> None:
    """A route that swallows everything costs a quarter of a second, not the host."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, fill(full):
        first, second = full.getsockname(), ("127.0.0.1", plain.port)
        targets = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (first, second, second)
        ]
        before = count_descriptors()
        stream = await transport._connect_first(targets)
        assert stream.socket.getpeername() == second
        await stream.aclose()
        assert count_descriptors() == before


def inet(*addresses: Any) -> list[transport.Target]:
    """Spell what a resolver finds."""
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]


async def test_of_two_that_answer_at_once_only_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand hosts with two addresses each are a thousand connections."""
    monkeypatch.setattr(transport, "NEXT_ADDRESS_SECONDS", 0)
    sockets = [trio.socket.from_stdlib_socket(sock) for sock in socket.socketpair()]
    are_both_there = trio.Event()

    async def connect_together(target: transport.Target, faults: list[str]) -> trio.SocketStream:
        if target is second:
            are_both_there.set()
        else:
            await are_both_there.wait()
        return trio.SocketStream(sockets[target is second])

    first, second = inet(("192.0.2.1", 1), ("192.0.2.2", 2))
    monkeypatch.setattr(transport, "_connect", connect_together)
    stream = await transport._connect_first((first, second))
    assert [sock.fileno() == -1 for sock in sockets] in ([False, True], [True, False])
    await stream.aclose()


async def test_all_addresses_that_refuse_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two addresses, one reason: one line."""
    address = ("127.0.0.1", free_port())
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: inet(address, address))
    error = await failure(Host("twice", "twice.example"))
    assert error.message == "nobody listens there (Connection refused)"


async def test_a_host_that_swallows_everything_is_given_up_in_time() -> None:
    """The packets to a host that is off get no answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, fill(full):
        error = await failure(Host("off", *full.getsockname()), seconds=0.05)
    assert isinstance(error, Unreachable)
    assert error.message == "no connection in time"


@contextlib.contextmanager
def fill(listener: socket.socket) -> Iterator[None]:
    """Take the places of those that nobody takes in; who comes after them is not answered."""
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield


async def test_a_resolver_that_hangs_takes_nothing_but_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead name server delays neither other hosts nor other work of the program."""
    go_on = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: hang(go_on, **options))
    began = time.monotonic()
    errors: list[AskError] = []

    async def ask(number: int) -> None:
        errors.append(await failure(Host("hung", f"hung{number}.example"), seconds=0.05))

    try:
        async with trio.open_nursery() as nursery:
            for number in range(transport.RESOLVING_THREADS + 10):
                nursery.start_soon(ask, number)
        assert time.monotonic() - began < PATIENCE_SECONDS / 3
        assert {error.message for error in errors} == {"the name was not resolved in time"}
        assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    finally:
        go_on.set()


def hang(go_on: threading.Event, flags: int = 0, **options: object) -> list[object]:
    """Be a resolver that knows no addresses and gets no answer."""
    if flags & socket.AI_NUMERICHOST:
        raise socket.gaierror(socket.EAI_NONAME, "not an address")
    go_on.wait(PATIENCE_SECONDS)
    return []


# Unix sockets


async def test_a_unix_socket_is_never_sealed(
    start_with: Callable[..., Program], certificates: Certificates, socket_path: str
) -> None:
    """The host itself and the network are asked by one program with one set of options."""
    program = start_with(certificates.settings(), "--unix-socket", socket_path)
    assert program.port
    assert await pong(f"unix:{socket_path}", certificates.client_context())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "there is no such socket (No such file or directory)"),
        (lambda path: path.touch(), "nobody listens there (Connection refused)"),
    ],
    ids=["missing", "a file"],
)
async def test_a_unix_socket_that_is_none_is_said_to_be_so(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    """The server is not started, or it is another file that was meant."""
    make(tmp_path / "socket")
    assert (await failure(f"unix:{tmp_path}/socket")).message == reason


async def test_a_unix_socket_that_takes_nobody_in_is_given_up_in_time(socket_path: str) -> None:
    """A server that hangs holds nobody."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(socket_path)
        listener.listen(1)
        error = await failure(f"unix:{socket_path}", seconds=0.05)
    assert error.message == "no answer in 0.05 s; what takes long needs a longer --timeout"


@pytest.mark.parametrize("path", ["/" + "a" * 200, "/\0"])
async def test_a_path_that_no_socket_can_have_is_no_fault_of_ours(path: str) -> None:
    """One bad line in a list of hosts costs one line of output."""
    assert isinstance(await failure(Host("bad", path, None)), Unreachable)


# TLS


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_host_is_asked_through_tls(
    sealed: Program, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """What a host answers is nobody else's."""
    context = certificates.client_context(version=version)
    assert await pong(f"localhost:{sealed.port}", context)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_certificate_that_the_host_wants_is_shown(
    strict: Program, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """Who may ask can be a certificate."""
    context = certificates.client_context(certificates.client, version=version)
    assert await pong(f"127.0.0.1:{strict.port}", context)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["", "other", "expired"])
async def test_a_certificate_that_the_host_does_not_take_is_said_to_be_it(
    strict: Program, certificates: Certificates, version: ssl.TLSVersion, kind: str
) -> None:
    """In TLS 1.3 the refusal comes only after the first question."""
    context = certificates.client_context(kind and getattr(certificates, kind), version=version)
    error = await failure(f"127.0.0.1:{strict.port}", context)
    assert isinstance(error, TlsFailed)
    assert "show one by --cert and --key" in error.message


async def test_an_authority_nobody_knows_is_asked_for(sealed: Program) -> None:
    """The remedy is one option."""
    error = await failure(f"127.0.0.1:{sealed.port}", ssl.create_default_context())
    assert isinstance(error, TlsFailed)
    assert error.message.endswith("; name its authority by --ca")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("named", "not valid for '127.0.0.1'; ask for the host by a name in its certificate"),
        ("old", "certificate has expired; it must be renewed there, or a clock is wrong"),
    ],
)
async def test_a_host_that_is_not_who_it_should_be_is_not_asked(
    certificates: Certificates, kind: str, reason: str
) -> None:
    """Neither a question nor a token reaches somebody between."""
    made = {
        "named": lambda: certificates.issue("named", "elsewhere.example"),
        "old": lambda: certificates.issue("old", "127.0.0.1", not_before=NOW - 2 * DAY, not_after=NOW - DAY),
    }
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made[kind]())
    with BadHost(shaking(context)) as host:
        error = await failure(host.name, certificates.client_context())
    assert isinstance(error, TlsFailed)
    assert error.message.startswith("its certificate is not good: ")
    assert error.message.endswith(reason)


def shaking(context: ssl.SSLContext) -> Behaviour:
    """Be a server of TLS, as far as the client lets it."""

    def shake(client: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError):
            context.wrap_socket(client, server_side=True).close()

    return shake


async def test_tls_on_our_side_only_is_said(plain: Program, certificates: Certificates) -> None:
    """The remedy is one option less."""
    error = await failure(f"127.0.0.1:{plain.port}", certificates.client_context())
    assert isinstance(error, TlsFailed)
    assert "ask without --tls" in error.message


async def test_a_host_that_answers_tls_with_text_is_said_to_speak_none(certificates: Certificates) -> None:
    """Such as one whose places are all taken."""
    with BadHost(saying(b"Too many connections. bye !\n")) as host:
        error = await failure(host.name, certificates.client_context())
    assert isinstance(error, TlsFailed)
    assert error.message.startswith("it does not speak TLS (")


async def test_tls_on_the_other_side_only_is_said(sealed: Program) -> None:
    """The remedy is one option; a server of ours says nothing to whoever speaks no TLS."""
    error = await failure(f"127.0.0.1:{sealed.port}")
    assert isinstance(error, ConnectionLost)
    assert error.message.endswith("without a word; if it speaks TLS, ask with --tls")


async def test_an_alert_of_tls_is_understood_without_tls() -> None:
    """Other programs that speak TLS complain in TLS."""
    with BadHost(saying(b"\x15\x03\x01\x00\x02\x02\x0a")) as host:
        error = await failure(host.name)
    assert isinstance(error, TlsFailed)
    assert error.message == "it speaks TLS: ask with --tls"


async def test_no_version_in_common_is_said(certificates: Certificates) -> None:
    """Nobody is told to look at certificates then."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificates.server_certificate, certificates.server_key)
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    context = certificates.client_context(version=ssl.TLSVersion.TLSv1_2)
    with BadHost(shaking(server)) as host:
        error = await failure(host.name, context)
    assert isinstance(error, TlsFailed)
    assert error.message.startswith("there is no TLS that both speak (")


async def test_a_handshake_that_is_not_answered_is_given_up_in_time(certificates: Certificates) -> None:
    """A host that hangs in its handshake holds nobody."""
    with BadHost(stay_silent) as host:
        error = await failure(host.name, certificates.client_context(), seconds=0.05)
    assert isinstance(error, TlsFailed)
    assert error.message == "TLS was not agreed on in time"


async def test_a_name_with_its_last_dot_is_the_one_in_the_certificate(
    sealed: Program, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the dot no search list is tried, which is why it is written."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: inet(("127.0.0.1", sealed.port)))
    assert await pong(Host("dotted", "localhost.", sealed.port), certificates.client_context())


async def test_a_name_that_no_certificate_can_have_is_no_fault_of_ours(
    sealed: Program, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad line in a list of hosts costs one line of output."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: inet(("127.0.0.1", sealed.port)))
    error = await failure(Host("bad", ".example", sealed.port), certificates.client_context())
    assert error.message == "no certificate can have such a name"


async def test_an_end_without_its_word_in_tls_is_a_lost_connection(certificates: Certificates) -> None:
    """Whoever is in between cannot pass off a part of an answer as all of it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server_certificate, certificates.server_key)

    def cut(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as tls:
            greet(tls)
            tls.sendall(b'{"id":2,"command":"pi')
            tls.recv(1)
            socket.socket(fileno=tls.detach()).close()  # no close_notify

    with BadHost(cut) as host:
        error = await failure(host.name, certificates.client_context())
    assert isinstance(error, ConnectionLost)
