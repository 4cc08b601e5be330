"""Grants in the program: clients of several addresses, every command, exactly the table."""

import contextlib
import itertools
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from certificates import Certificates
from program import PATIENCE_SECONDS, Program, free_port, read_all
from trio_cmd.commands import COMMANDS
from trio_cmd.tokens import digest_token, make_token

StartProgram = Callable[..., Program]
WriteSettings = Callable[[str], str]

TOKEN, OTHER = make_token(), make_token()
GRANTS = f"""
    [[grants]]
    name = "monitoring"
    addresses = ["127.0.0.2", "127.16.0.0/12"]
    commands = ["ping", "status", "hello"]
    [[grants]]
    name = "operators"
    addresses = ["127.0.0.3", "::1", "127.16.0.1"]
    commands = ["*"]
    [[grants]]
    name = "local-users"
    addresses = ["unix"]
    commands = ["lastlog", "ping"]
    [[grants]]
    name = "responders"
    addresses = ["127.0.0.4", "127.0.0.2", "unix"]
    commands = ["comphash", "verify"]
    token_sha256 = "{digest_token(TOKEN.encode())}"
    """
ALWAYS = {"help", "format", "auth", "exit", "quit"}
EVERYTHING = {name.decode() for name in COMMANDS} | {"hello"}
MONITORING = {"ping", "status", "hello"}
RESPONDERS = {"comphash", "verify"}
# What each kind of client may run: (address, token) -> commands, or nothing: not even a connection.
TABLE: dict[tuple[str, str], set[str]] = {
    ("127.0.0.1", ""): set(),
    ("127.0.0.2", ""): ALWAYS | MONITORING,
    ("127.0.0.2", TOKEN): ALWAYS | MONITORING | RESPONDERS,
    ("127.0.0.2", OTHER): ALWAYS | MONITORING,
    ("127.0.0.3", ""): EVERYTHING,
    ("127.0.0.3", TOKEN): EVERYTHING,
    ("127.0.0.4", ""): ALWAYS,
    ("127.0.0.4", TOKEN): ALWAYS | RESPONDERS,
    ("127.0.0.4", OTHER): ALWAYS,
    ("127.0.0.5", ""): set(),
    ("127.15.255.255", ""): set(),
    ("127.16.0.0", ""): ALWAYS | MONITORING,
    ("127.16.0.1", ""): EVERYTHING,
    ("127.31.255.255", ""): ALWAYS | MONITORING,
    ("127.32.0.0", ""): set(),
    ("unix", ""): ALWAYS | {"lastlog", "ping"},
    ("unix", TOKEN): ALWAYS | {"lastlog", "ping"} | RESPONDERS,
}
LINES = {"format": "format text", "auth": "auth x", "follow": "follow nosuch", "verify": "verify md5:0 /x"}


def connect_from(address: str, program: Program) -> socket.socket:
    if address == "unix":
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE_SECONDS)
        client.connect(program.wait_for("listening", host="unix")["path"])
        return client
    return socket.create_connection(
        ("127.0.0.1", program.port), timeout=PATIENCE_SECONDS, source_address=(address, 0)
    )


def ask_from(address: str, program: Program, data: bytes) -> bytes:
    """Ask from one of the addresses of this host, or through the unix socket."""
    with connect_from(address, program) as client:
        with contextlib.suppress(OSError):  # a refused client may be cut off
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        return read_all(client)


@pytest.fixture
def granting(start: StartProgram, write_settings: WriteSettings, log_file: Path, tmp_path: Path) -> Program:
    """A server with four grants."""
    path = f'[server]\nunix_socket = "{tmp_path}/socket"\n'
    logs = f'[logs]\nsyslog = {{ file = "{log_file}" }}\n'
    programs = '[programs.hello]\nargv = ["/bin/echo", "hello"]\n'
    return start("--config", write_settings(path + logs + programs + GRANTS))


def test_every_kind_of_client_may_run_exactly_what_it_was_granted(granting: Program) -> None:
    """Seventeen kinds of clients times all commands, over real connections, and the record agrees."""
    for (address, token), allowed in TABLE.items():
        greeting = f"auth {token}\n" if token else ""
        if not allowed:
            refusal = f"Not allowed from {address}. bye !\n".encode()
            assert ask_from(address, granting, b"ping\nstatus\n") == refusal
            continue
        for name in sorted(EVERYTHING):
            line = LINES.get(name, name)
            answer = ask_from(address, granting, f"{greeting}{line}\n".encode()).decode()
            is_refused = f"An error occured : {name} is not allowed here\n" in answer
            assert is_refused is (name not in allowed), (address, bool(token), name, answer)
        listed = ask_from(address, granting, f"{greeting}help\n".encode()).decode()
        block = listed.split("Begin help\n")[1].split("End help\n")[0]
        assert {row.split()[0] for row in block.splitlines()} == allowed
    assert granting.stop() == 0
    granting.rest()
    check_records(granting)


CERTIFIED = """
    [[grants]]
    name = "monitoring"
    addresses = ["127.0.0.2"]
    certificate = "mon.example"
    commands = ["ping", "status"]
    [[grants]]
    name = "responders"
    addresses = ["127.0.0.0/8"]
    certificate = "responder.example"
    commands = ["comphash", "verify"]
    """
# Which commands of the two grants who may run: (address, names in the certificate) -> commands, or nothing.
CERTIFIED_TABLE: dict[tuple[str, tuple[str, ...]], set[str]] = {
    ("127.0.0.2", ("mon.example",)): ALWAYS | {"ping", "status"},
    ("127.0.0.3", ("mon.example",)): set(),
    ("127.0.0.3", ("responder.example",)): ALWAYS | RESPONDERS,
    ("127.0.0.2", ("mon.example", "responder.example")): ALWAYS | {"ping", "status"} | RESPONDERS,
    ("127.0.0.2", ("mon.example.evil.example",)): set(),
    ("127.0.0.2", ("*.example",)): set(),
}


def test_every_kind_of_certificate_gives_exactly_what_it_was_granted(
    start: StartProgram, write_settings: WriteSettings, certificates: Certificates
) -> None:
    """A good signature lets nobody do more than the names in it were given, where they were given it."""
    program = start("--config", write_settings(certificates.settings(client_ca=True) + CERTIFIED))
    for number, ((address, names), allowed) in enumerate(CERTIFIED_TABLE.items()):
        context = certificates.client_context(certificates.issue(f"kind{number}", *names))
        if not allowed:
            refusal = f"Not allowed from {address}. bye !\n".encode()
            assert ask_over_tls(context, address, program, b"ping\n") == refusal
            continue
        for name in sorted(name.decode() for name in COMMANDS):
            answer = ask_over_tls(context, address, program, f"{LINES.get(name, name)}\n".encode()).decode()
            is_refused = f"An error occured : {name} is not allowed here\n" in answer
            assert is_refused is (name not in allowed), (address, names, name, answer)


def ask_over_tls(context: ssl.SSLContext, address: str, program: Program, data: bytes) -> bytes:
    plain = connect_from(address, program)
    with context.wrap_socket(plain, server_hostname="localhost") as client:
        client.sendall(data + b"exit\n")
        pieces = []
        with contextlib.suppress(ssl.SSLError, ConnectionResetError):
            while piece := client.recv(1 << 16):
                pieces.append(piece)
        return b"".join(pieces)


def check_records(program: Program) -> None:
    """See in the record that nothing was run that was not granted."""
    union = {
        address: set().union(*(names for (other, _), names in TABLE.items() if other == address))
        for address, _ in TABLE
    }
    for record in program.actions("command-completed"):
        is_granted = record["command"] in union[record["client"]]
        assert is_granted or record["outcome"] == "not-allowed"
    refused = [record["client"] for record in program.actions("client-refused")]
    assert sorted(refused) == sorted(address for (address, _), allowed in TABLE.items() if not allowed)
    assert {record["reason"] for record in program.actions("client-refused")} == {"not-allowed"}


def test_a_client_that_is_not_allowed_is_told_before_anything_is_read(granting: Program) -> None:
    """Not a byte of what somebody sends who was not named is looked at."""
    with connect_from("127.0.0.9", granting) as client:
        assert read_all(client) == b"Not allowed from 127.0.0.9. bye !\n"
    lost = granting.wait_for("client-lost")
    assert (lost["reason"], lost["level"], lost["bytes_in"]) == ("not-allowed", "warning", 0)
    refused = granting.wait_for("client-refused")
    assert refused["event"] == "Not allowed from 127.0.0.9. bye !"
    assert (refused["client"], refused["reason"], refused["level"]) == ("127.0.0.9", "not-allowed", "warning")


def test_the_start_names_the_grants_in_force(granting: Program) -> None:
    """From the record alone one knows who could come in."""
    assert granting.wait_for("server-started")["grants"] == [
        "monitoring",
        "operators",
        "local-users",
        "responders",
    ]


def test_an_ipv4_client_of_a_listener_of_both_families_is_known_by_its_own_address(
    start: StartProgram,
) -> None:
    """An address in the dress of IPv6 passes no rule that was made for IPv4, nor is it kept out by one."""
    port = free_port()
    args = ["--host", "*", "--port", str(port), "--allow", "127.0.0.2", "--root", "/", "--allow-root"]
    program = start(*args)
    assert ask_from("127.0.0.2", program, b"ping\n") == b"pong\n"
    assert ask_from("127.0.0.3", program, b"ping\n") == b"Not allowed from 127.0.0.3. bye !\n"
    if socket.has_ipv6 and Path("/proc/net/if_inet6").exists():
        with socket.create_connection(("::1", port), timeout=PATIENCE_SECONDS) as client:
            assert read_all(client) == b"Not allowed from ::1. bye !\n"


def test_pairs_of_clients_do_not_share_what_one_was_allowed(granting: Program) -> None:
    """A token opens its own connection only."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect_from("127.0.0.4", granting)) for _ in range(2)]
        clients[0].sendall(f"auth {TOKEN}\n".encode())
        assert clients[0].recv(100) == b"Welcome responders.\n"
        for client, is_allowed in itertools.zip_longest(clients, [True, False]):
            client.sendall(b"comphash\n")
            answer = client.recv(100)
            assert (answer == b"Please provide a path.\n") is is_allowed
