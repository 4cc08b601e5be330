"""TLS with real clients, against the program as a process."""

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from certificates import Certificates
from conftest import StartProgram
from program import PATIENCE_SECONDS, Program, Record, read_all, reset, wait_until

WriteSettings = Callable[[str], str]

FULL = os.environ.get("TRIO_CMD_FULL") == "1"
VERSIONS = {
    "-tls1_2": ssl.TLSVersion.TLSv1_2,
    "-tls1_3": ssl.TLSVersion.TLSv1_3,
}
LOG_LINES = [b"Nov 20 15:02:00 lab kernel: %06d " % n + b"=" * 60 for n in range(10_000)]
CLOSED = b""
STALLED = "not finished in 5 s"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log whose lines fill the buffers of a connection."""
    path = tmp_path_factory.mktemp("log") / "big"
    path.write_bytes(b"\n".join([*LOG_LINES, b""]))
    return path


@pytest.fixture(scope="module")
def start_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Program]]:
    """Start a program for all tests of this module; gives it the text of its settings."""
    with ExitStack() as stack:

        def start(text: str) -> Program:
            path = tmp_path_factory.mktemp("settings") / "trio-cmd.toml"
            path.write_text(text)
            path.chmod(0o600)
            return stack.enter_context(Program("--config", str(path)))

        yield start


@pytest.fixture(scope="module")
def sealed(start_once: Callable[..., Program], certificates: Certificates, log: Path) -> Program:
    """A server that speaks TLS with anybody on this host."""
    return start_once(f'{certificates.settings()}[logs]\nsyslog = {{ file = "{log}" }}\n')


@pytest.fixture(scope="module")
def plain(start_once: Callable[..., Program], log: Path) -> Program:
    """The same without TLS."""
    return start_once(f'[logs]\nsyslog = {{ file = "{log}" }}\n')


@pytest.fixture(scope="module")
def strict(start_once: Callable[..., Program], certificates: Certificates) -> Program:
    """A server that lets in whoever has a certificate, and says to one name what it says to nobody else."""
    grants = """
[[grants]]
name = "lab"
certificate = "client.lab"
commands = ["ping"]
"""
    return start_once(certificates.settings(client_ca=True) + grants)


def connect(program: Program, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Connect and shake hands; an end without ``close_notify`` is an error."""
    return context.wrap_socket(program.connect(), server_hostname="localhost", suppress_ragged_eofs=False)


def read_sealed(client: ssl.SSLSocket) -> bytes:
    """Read until ``close_notify``."""
    return b"".join(iter(lambda: client.recv(1 << 16), CLOSED))


def converse(command: str, asked: bytes) -> tuple[bytes, str]:
    """Run a client in a shell; returns what it printed and what it complained of."""
    done = subprocess.run(["bash", "-c", command], input=asked, capture_output=True, timeout=PATIENCE_SECONDS)
    return done.stdout, done.stderr.decode()


_recent: list[float] = []


def lost_after(program: Program, act: Callable[[], object]) -> Record:
    """Do something that makes one connection; returns the record of its end.

    Ten failures of an address in a second are recorded by themselves: this makes two, and some tests
    make others besides.
    """
    wait_until(lambda: sum(time.monotonic() - then < 1.2 for then in _recent) < 3, "the next second")
    _recent.append(time.monotonic())
    before = max((record.get("connection", -1) for record in program.records), default=-1)
    with program.connect() as marker:
        port = marker.getsockname()[1]
    # An earlier client may have had the same port.
    marked = program.wait_until(
        lambda r: r["action"] == "client-lost" and r.get("port") == port and r["connection"] > before
    )
    act()
    return program.wait_for("client-lost", connection=marked["connection"] + 1)


# The same conversation

CLIENTS = [
    pytest.param("ncat --ssl 127.0.0.1 {port}", id="ncat --ssl", marks=pytest.mark.needs("ncat")),
    pytest.param(
        "socat -t 5 - OPENSSL:127.0.0.1:{port},cafile={ca}",
        id="socat OPENSSL",
        marks=pytest.mark.needs("socat"),
    ),
    pytest.param(
        "(cat; sleep 0.2) | openssl s_client -quiet -verify_quiet -verify_return_error "
        "-CAfile {ca} -connect 127.0.0.1:{port}",
        id="openssl s_client -quiet",
        marks=pytest.mark.needs("openssl"),
    ),
]


@pytest.mark.parametrize("client", CLIENTS)
def test_the_same_conversation_as_over_plain_netcat(
    sealed: Program, plain: Program, certificates: Certificates, log: Path, client: str
) -> None:
    """Whoever speaks TLS gets the same bytes, also of an answer that does not fit into the buffers."""
    asked = b"test\nlastlog 10000\ncomphash %s\nexit\nping\n" % bytes(log)
    expected = plain.ask(asked)
    assert len(expected) > 900_000
    answer, _ = converse(client.format(port=sealed.port, ca=certificates.ca), asked)
    assert answer == expected


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
def test_python_speaks_with_it(
    sealed: Program, plain: Program, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """A program of one's own needs nothing but the standard library, and knows an answer that was cut."""
    asked = b"test\nlastlog 10000\nexit\n"
    with connect(sealed, certificates.client_context(version=version)) as client:
        client.sendall(asked)
        assert read_sealed(client) == plain.ask(asked)


@pytest.mark.parametrize("client", CLIENTS[:2])
def test_the_end_of_input_is_not_the_end_of_the_answers(
    sealed: Program, plain: Program, certificates: Certificates, client: str
) -> None:
    r"""``printf 'lastlog\nping' | ncat --ssl`` is how scripts ask, without a last newline."""
    asked = b"lastlog 10000\nping"
    line = client.format(port=sealed.port, ca=certificates.ca)
    answers: list[bytes] = []
    lost = lost_after(sealed, lambda: answers.append(converse(line, asked)[0]))
    assert answers == [plain.ask(asked)]
    assert lost["reason"] == "closed"
    assert str(lost["tls"]).startswith("TLSv1.")
    assert "certificate" not in lost


@pytest.mark.needs("openssl")
def test_new_keys_in_mid_conversation_change_nothing(sealed: Program, certificates: Certificates) -> None:
    """Long-lived connections change their keys, and ask the other side to do so as well."""
    command = ["openssl", "s_client", "-tls1_3", "-CAfile", certificates.ca]
    command += ["-connect", f"127.0.0.1:{sealed.port}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        for line in (b"ping\n", b"K\n", b"ping\n", b"exit\n"):
            client.stdin.write(line)
            client.stdin.flush()
            wanted = b"KEYUPDATE\n" if line == b"K\n" else b"pong\n" if line == b"ping\n" else b"closed\n"
            while (said := client.stdout.readline()) != wanted:
                assert said, f"it ended before {wanted!r}"


# Who is refused

BAD = {  # kind -> what the client reads by TLS 1.2, and by 1.3; what is recorded
    "none": ("handshake failure", "certificate required", "peer did not return a certificate"),
    "other": ("unknown ca", "unknown ca", "unable to get local issuer certificate"),
    "expired": ("certificate expired", "certificate expired", "certificate has expired"),
    "not_yet_valid": ("bad certificate", "bad certificate", "certificate is not yet valid"),
}


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("version", [pytest.param(0, id="TLS 1.2"), pytest.param(1, id="TLS 1.3")])
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_certificate_is_refused_and_both_sides_know_why(
    strict: Program, certificates: Certificates, kind: str, version: int
) -> None:
    """An operator can tell a certificate that ran out from one of somebody else, at either end."""
    given = f"-cert {getattr(certificates, kind)}" if kind != "none" else ""
    flag = list(VERSIONS)[version]
    command = f"openssl s_client {flag} {given} -ign_eof -connect 127.0.0.1:{strict.port}"
    said: list[tuple[bytes, str]] = []
    lost = lost_after(strict, lambda: said.append(converse(command, b"ping\n")))
    assert f" alert {BAD[kind][version]}:" in said[0][1]
    assert b"pong" not in said[0][0]
    assert (lost["reason"], lost["requests"], lost["bytes_in"]) == ("tls-failed", 0, 0)
    assert (lost["tls_error"], lost["level"]) == (BAD[kind][2], "warning")


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_an_old_protocol_is_refused_and_both_sides_know_why(sealed: Program, version: str) -> None:
    """What was broken ten years ago is not spoken, whatever the client allows."""
    old = f"openssl s_client {version} -cipher DEFAULT@SECLEVEL=0 -connect 127.0.0.1:{sealed.port}"
    said: list[str] = []
    lost = lost_after(sealed, lambda: said.append(converse(old, b"ping\n")[1]))
    assert "alert protocol version" in said[0]
    assert (lost["reason"], lost["tls_error"]) == ("tls-failed", "unsupported protocol")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"ping\nexit\n", id="a command"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
        pytest.param(b"\x80\x2e\x01\x00\x02", id="SSL 2"),
        pytest.param(b"\n", id="a line feed"),
    ],
)
def test_what_is_not_tls_is_closed_and_recorded(sealed: Program, sent: bytes) -> None:
    """Nothing that was sent in plain text is ever run, nor answered."""
    answers: list[bytes] = []
    lost = lost_after(sealed, lambda: answers.append(sealed.ask(sent)))
    assert answers == [b""]
    assert (lost["reason"], lost["requests"], lost["bytes_in"]) == ("tls-failed", 0, 0)
    assert lost["tls_error"] == "the client does not speak TLS"


def test_no_command_can_be_put_before_the_handshake(sealed: Program, certificates: Certificates) -> None:
    """What was injected in front of a client's own bytes is not taken for the client's."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = certificates.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    for injected in (b"ping\n" + hello, hello + b"ping\n", hello[:50] + b"ping\n" + hello[50:]):
        lost = lost_after(sealed, lambda sent=injected: sealed.ask(sent))  # type: ignore[misc]  # mypy infers no default
        assert (lost["reason"], lost["requests"]) == ("tls-failed", 0)
    assert not sealed.actions("handler-crashed")


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
def test_a_certificate_with_the_name_of_a_grant_gets_what_is_granted(
    strict: Program, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """A client is known by its certificate, and each of its commands is recorded with it."""
    context = certificates.client_context(certificates.client, version=version)

    def ask() -> None:
        with connect(strict, context) as client:
            client.sendall(b"ping\nstatus\nexit\n")
            assert read_sealed(client) == b"pong\nAn error occured : status is not allowed here\n"

    lost = lost_after(strict, ask)
    assert (lost["reason"], lost["certificate"]) == ("exit", "client.lab")
    assert lost["tls"] == {771: "TLSv1.2", 772: "TLSv1.3"}[version]
    records = [r for r in strict.actions("command-completed") if r["connection"] == lost["connection"]]
    assert [record["certificate"] for record in records] == ["client.lab"] * 3


def test_a_good_certificate_with_another_name_is_told_that_it_is_not_allowed(
    strict: Program, certificates: Certificates
) -> None:
    """The authority signs for many; that alone opens nothing."""
    context = certificates.client_context(certificates.issue("stranger", "stranger.lab"))

    def ask() -> None:
        with connect(strict, context) as client:
            client.sendall(b"ping\n")
            assert read_sealed(client) == b"Not allowed from 127.0.0.1. bye !\n"

    lost = lost_after(strict, ask)
    assert (lost["reason"], lost["certificate"], lost["requests"]) == ("not-allowed", "stranger.lab", 0)
    refused = strict.wait_for("client-refused", connection=lost["connection"])
    assert (refused["reason"], refused["certificate"]) == ("not-allowed", "stranger.lab")
    assert refused["system"] == "trio_cmd.Server"


def test_a_certificate_without_any_name_is_not_allowed(strict: Program, certificates: Certificates) -> None:
    """No name is not every name."""
    context = certificates.client_context(certificates.issue("nameless", "nobody@lab"))

    def ask() -> None:
        with connect(strict, context) as client:
            assert read_sealed(client) == b"Not allowed from 127.0.0.1. bye !\n"

    lost = lost_after(strict, ask)
    assert lost["reason"] == "not-allowed"
    assert "certificate" not in lost


def test_who_is_refused_by_its_address_gets_no_word_and_a_record(
    start: StartProgram, write_settings: WriteSettings, certificates: Certificates
) -> None:
    """Before the handshake nothing can be said, and whoever may not come gets no handshake."""
    grant = '[[grants]]\nname = "far"\naddresses = ["192.0.2.0/24"]\ncommands = ["*"]\n'
    program = start("--config", write_settings(certificates.settings() + grant))
    with program.connect() as client:
        assert read_all(client) == b""
    assert program.wait_for("client-refused")["reason"] == "not-allowed"
    assert program.wait_for("client-lost")["reason"] == "not-allowed"


def test_the_unix_socket_stays_plain(
    start: StartProgram, write_settings: WriteSettings, certificates: Certificates, tmp_path: Path
) -> None:
    """What never leaves the host needs no certificate, also where all others must have one."""
    path = str(tmp_path / "socket")
    program = start("--unix-socket", path, "--config", write_settings(certificates.settings(client_ca=True)))
    assert program.port
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_SECONDS)
        client.connect(path)
        client.sendall(b"ping\nexit\n")
        assert read_all(client) == b"pong\n"
    assert "tls" not in program.wait_for("client-lost")


def test_one_client_too_many_gets_no_word_and_a_record(
    start: StartProgram, write_settings: WriteSettings, certificates: Certificates
) -> None:
    """The place of a client that is in costs nobody a handshake."""
    program = start("--max-clients", "1", "--config", write_settings(certificates.settings()))
    with connect(program, certificates.client_context()) as first:
        first.sendall(b"ping\n")
        assert first.recv(100) == b"pong\n"
        with program.connect() as second:
            assert read_all(second) == b""
        assert program.wait_for("client-refused")["reason"] == "too-many-clients"
        first.sendall(b"ping\n")
        assert first.recv(100) == b"pong\n"


def test_a_bad_file_stops_the_start_with_one_line(
    start: StartProgram, write_settings: WriteSettings, certificates: Certificates, tmp_path: Path
) -> None:
    """A server that was to speak TLS never starts without it."""
    missing = tmp_path / "nope"
    text = certificates.settings().replace(certificates.server_key, str(missing))
    program = start("--check-config", "--config", write_settings(text))
    assert program.wait() == 78
    reason = "No such file or directory; name a file in PEM form that can be read"
    assert program.errors() == f"tls.key: '{missing}': {reason}\n"


# Bad clients


def test_a_slow_reader_is_cut_by_its_deadline_and_not_told_that_this_was_all(
    start: StartProgram, write_settings: WriteSettings, certificates: Certificates, log: Path
) -> None:
    """A client that stops reading costs as little as without TLS, and cannot take a part for the whole."""
    limits = f'[limits]\nwrite_seconds = 0.3\n[logs]\nsyslog = {{ file = "{log}" }}\n'
    program = start("--config", write_settings(certificates.settings() + limits))
    with connect(program, certificates.client_context()) as client:
        client.sendall(b"lastlog 10000\n" * 30)
        assert program.wait_for("client-lost")["reason"] == "slow-reader"
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            read_sealed(client)


def test_a_reset_in_the_handshake_is_a_reset(sealed: Program) -> None:
    """A client that dies is not said to speak bad TLS."""

    def leave() -> None:
        client = sealed.connect()
        client.sendall(b"\x16\x03\x01\x02\x00\x01")
        reset(client)

    lost = lost_after(sealed, leave)
    assert (lost["reason"], lost["requests"]) == ("reset", 0)
    assert "tls_error" not in lost


def test_a_reset_in_mid_answer_leaves_nothing(sealed: Program, certificates: Certificates) -> None:
    """Clients that die are forgotten, with all that was sealed for them."""
    with connect(sealed, certificates.client_context()) as client:
        client.sendall(b"lastlog 1\nexit\n")
        assert read_all(client).endswith(b"End lastlog\n")
    sealed.wait_for("client-lost")
    before = sealed.descriptors()  # with the table of mounts, which stays open
    for _ in range(5):

        def leave() -> None:
            client = connect(sealed, certificates.client_context())
            client.sendall(b"lastlog 10000\n" * 30)
            client.recv(1000)
            reset(client)

        assert lost_after(sealed, leave)["reason"] == "reset"
    wait_until(lambda: sealed.descriptors() <= before, "all descriptors are given back")
    assert not sealed.actions("handler-crashed")


def test_stopping_ends_tls_clients_in_every_state(
    start: StartProgram, write_settings: WriteSettings, certificates: Certificates, log: Path
) -> None:
    """A stop is as quick with TLS, and whoever can be told is told."""
    limits = f'[limits]\nstop_seconds = 0.5\n[logs]\nsyslog = {{ file = "{log}" }}\n'
    program = start("--config", write_settings(certificates.settings() + limits))
    context = certificates.client_context()
    with ExitStack() as stack:
        silent, half = stack.enter_context(program.connect()), stack.enter_context(program.connect())
        half.sendall(b"\x16\x03\x01\x02\x00\x01")
        idle, following, slow = (stack.enter_context(connect(program, context)) for _ in range(3))
        idle.sendall(b"ping\n")
        assert idle.recv(100) == b"pong\n"
        following.sendall(b"follow\n")
        assert following.recv(100) == b"Begin follow\n"
        slow.sendall(b"lastlog 10000\n" * 30)
        assert slow.recv(13) == b"Begin lastlog"
        began = time.monotonic()
        program.process.send_signal(signal.SIGTERM)
        assert read_all(silent) == b""
        assert read_all(half) == b""
        assert read_sealed(idle) == b"Server is stopping. bye !\n"
        assert read_sealed(following) == b"End follow\nServer is stopping. bye !\n"
        assert program.wait() == 0
        assert time.monotonic() - began < PATIENCE_SECONDS / 2
    lost = {record["connection"]: record for record in program.rest() if record["action"] == "client-lost"}
    assert {record["reason"] for record in lost.values()} == {"stopping"}
    assert len(lost) == 5
    assert [record.get("tls_error") for record in lost.values()].count("server is stopping") == 2
    assert not program.actions("handler-crashed")


def test_a_second_signal_cuts_handshakes_too(
    start: StartProgram, write_settings: WriteSettings, certificates: Certificates
) -> None:
    """Whoever is cut because the server stops is not said to have crashed it."""
    program = start("--config", write_settings(certificates.settings()))
    program.wait_for("server-started")
    before = program.descriptors()
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(program.connect())
        # They are recorded when their handshakes are over.
        wait_until(lambda: program.descriptors() == before + 5, "five handshakes under way")
        program.process.send_signal(signal.SIGTERM)
        assert program.stop(signal.SIGINT) == 0
    program.rest()
    assert [record["reason"] for record in program.actions("client-lost")] == ["stopping"] * 5


@pytest.mark.usefixtures("enough_descriptors")
def test_stalled_handshakes_keep_nobody_out(
    start: StartProgram, write_settings: WriteSettings, certificates: Certificates
) -> None:
    """Whoever only connects takes a quarter of the places at most, and from the loopback too."""
    program = start("--config", write_settings(certificates.settings()))
    count = 1000 if FULL else 200
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(program.connect())
        began = time.monotonic()
        with connect(program, certificates.client_context()) as innocent:
            innocent.sendall(b"ping\nstatus\n")
            said = b""
            while not said.endswith(b"End status\n"):
                said += innocent.recv(1 << 16)
            assert time.monotonic() - began < PATIENCE_SECONDS / 2
            assert said.startswith(b"pong\n")
            clients = int(said.partition(b"clients: ")[2].split()[0])
            assert clients <= 100 // 4 + 1
            assert b"\nrefused: 0\n" in said
    program.stop()
    program.rest()
    lost = program.actions("client-lost")
    ended = [record for record in lost if record.get("tls_error") == "too many unfinished handshakes"]
    summed = [record for record in program.actions("events-summed") if record["of"] == "client-lost"]
    assert len(ended) >= 10
    assert len(lost) + sum(record["count"] for record in summed) == count + 1
    assert {record["reason"] for record in ended} == {"tls-failed"}


@pytest.mark.waits
@pytest.mark.proof
def test_a_stalled_handshake_ends_by_its_deadline(sealed: Program) -> None:
    """A client that says nothing, or the half of it, holds its place for five seconds."""
    began = time.monotonic()
    with sealed.connect() as silent, sealed.connect() as half:
        half.sendall(b"\x16\x03\x01\x02\x00\x01")
        for client in (silent, half):
            assert read_all(client) == b""
            assert 4.5 < time.monotonic() - began < PATIENCE_SECONDS / 2
        ports = [client.getsockname()[1] for client in (silent, half)]
    for port in ports:
        assert sealed.wait_for("client-lost", port=port)["tls_error"] == STALLED


def test_a_flood_of_clients_whose_certificate_nobody_named_is_summed_up(
    start: StartProgram, write_settings: WriteSettings, certificates: Certificates
) -> None:
    """Whoever was signed by the authority and not named can fill no record either."""
    grant = '[[grants]]\nname = "g"\ncertificate = "somebody.lab"\ncommands = ["ping"]\n'
    program = start("--config", write_settings(certificates.settings(client_ca=True) + grant))
    context = certificates.client_context(certificates.client)
    count = 40
    for _ in range(count):
        with connect(program, context) as client:
            assert client.recv(100) == b"Not allowed from 127.0.0.1. bye !\n"
    assert program.stop() == 0
    program.rest()
    refused = program.actions("client-refused")
    summed = sum(r["count"] for r in program.actions("events-summed") if r["of"] == "client-refused")
    assert len(refused) + summed == count
    assert {r["connection"] for r in program.actions("client-connected")} == {
        r["connection"] for r in refused
    }
    assert len(program.actions("client-lost")) == len(refused)


def test_the_first_answer_does_not_wait_for_a_confirmation(
    start: StartProgram, write_settings: WriteSettings, certificates: Certificates
) -> None:
    """A client that leaves its packets to the kernel is not made to wait 40 ms for its first answer."""
    program = start("--config", write_settings(certificates.settings()))
    seconds = []
    for _ in range(9):
        with connect(program, certificates.client_context()) as client:
            client.sendall(b"ping\n")
            began = time.monotonic()
            client.sendall(b"ping\n")
            said = b""
            while said.count(b"\n") < 2:
                said += client.recv(100)
            seconds.append(time.monotonic() - began)
    assert sorted(seconds)[len(seconds) // 2] < 0.03
