"""The server on a unix socket: the same conversation, who is there, one server per path, nothing left."""

import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from conftest import StartProgram
from program import PATIENCE_SECONDS, Program, wait_until
from test_netcats import block, converse
from test_server import Running, read_all, running
from trio_cmd.errors import ListenError
from trio_cmd.server import reception
from trio_cmd.settings import Limits, ServerSettings, Settings
from trio_cmd.wire.stream import SocketStream

WHO = {"client": "unix", "uid": os.geteuid(), "pid": os.getpid()}

HALF_CLOSING = ("nc.openbsd -N -U {port}", "ncat -U {port}", "socat -t 5 - UNIX-CONNECT:{port}")
NETCATS = (*HALF_CLOSING, "nc.openbsd -U {port}")


def settings(path: str, host: str = "127.0.0.1", **limits: Any) -> Settings:
    return Settings(server=ServerSettings(host=host, port=0, unix_socket=path), limits=Limits(**limits))


@asynccontextmanager
async def running_at(path: str, **limits: Any) -> AsyncIterator[Running]:
    """Run a server that listens on a path only."""
    async with running(settings(path, host="", **limits)) as it:
        yield it


# Listening


async def test_both_kinds_of_clients_are_served(socket_path: str) -> None:
    """Who is at home on the host and who comes over the network talk to one server."""
    async with running(settings(socket_path)) as it:
        for connect in (it.connect, lambda: trio.open_unix_socket(socket_path)):
            async with await connect() as client:
                await client.send_all(b"ping\nexit\n")
                assert await read_all(client) == b"pong\n"
        tcp, unix = it.sink.actions("listening")
        assert (tcp["event"], tcp["port"]) == (f"trio_cmd.Server starting on {it.port}", it.port)
        assert unix["event"] == f"trio_cmd.Server starting on '{socket_path}'"
        assert (unix["host"], unix["path"]) == ("unix", socket_path)
        assert "port" not in unix
    (stopping,) = it.sink.actions("stopping")
    assert stopping["event"] == f"(TCP Port {it.port} Closed) (UNIX Port '{socket_path}' Closed)"


async def test_server_without_tcp_has_no_port(socket_path: str) -> None:
    """With no host, who cannot reach the path cannot reach the server."""
    async with running_at(socket_path) as it:
        port: object = it.port
        assert port is None
        assert [record["host"] for record in it.sink.actions("listening")] == ["unix"]
    assert [r["event"] for r in it.sink.actions("stopping")] == [f"(UNIX Port '{socket_path}' Closed)"]


async def test_path_goes_when_stopping_begins(socket_path: str) -> None:
    """The next server can start while this one lets its last clients finish."""
    async with running_at(socket_path) as it, await trio.open_unix_socket(socket_path) as client:
        await client.send_all(b"ping\n")
        assert await client.receive_some() == b"pong\n"
        it.server.stop("SIGTERM")
        assert await read_all(client) == b"Server is stopping. bye !\n"
        assert not os.path.lexists(socket_path)
        async with running_at(socket_path):
            assert os.path.lexists(socket_path)


async def test_path_goes_when_everything_is_cancelled(socket_path: str) -> None:
    """A second signal leaves nothing behind either."""
    async with trio.open_nursery() as nursery:
        await nursery.start(Running(settings(socket_path)).server.serve)
        assert os.path.lexists(socket_path)
        nursery.cancel_scope.cancel()
    assert not os.path.lexists(socket_path)


async def test_path_is_not_left_when_the_port_is_taken(socket_path: str) -> None:
    """A start that fails leaves nothing behind, whatever it failed of."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = ServerSettings(port=taken.getsockname()[1], unix_socket=socket_path)
        it = Running(Settings(server=address))
        with pytest.RaisesGroup(
            pytest.RaisesExc(ListenError, match="Address already in use"), flatten_subgroups=True
        ):
            await it.server.serve()
    assert not os.path.lexists(socket_path)


# Who is there


async def test_each_record_of_a_client_says_who_it_is(socket_path: str) -> None:
    """An audit names the user and the process, and no address that means nothing."""
    async with running_at(socket_path) as it:
        async with await trio.open_unix_socket(socket_path) as client:
            await client.send_all(b"ping\nexit\n")
            assert await read_all(client) == b"pong\n"
        await it.sink.wait_for("client-lost")
        about = [record for record in it.sink.records if "connection" in record]
    assert len(about) == 6
    for record in about:
        assert WHO.items() <= record.items()
        assert "port" not in record
        names = list(record)
        assert names[names.index("client") :][:3] == ["client", "uid", "pid"]
    assert about[0]["event"] == "Client connection from unix"
    assert about[-1]["system"] == "CmdProtocol,0,unix"


async def test_where_the_kernel_does_not_tell_who_it_is_only_the_kind_is_recorded(
    socket_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere than on Linux the record leaves out what is not known."""
    monkeypatch.setattr(reception, "peer_credentials", lambda sock: None)
    async with running_at(socket_path) as it, await trio.open_unix_socket(socket_path):
        (connected,) = await it.sink.wait_for("client-connected")
    assert connected["client"] == "unix"
    assert not {"uid", "pid", "port"} & {*connected}


# The conversation


@pytest.mark.needs("nc.openbsd", "ncat", "socat")
def test_netcats_hold_the_whole_conversation(
    start: StartProgram, socket_path: str, log_file: Path, tmp_path: Path
) -> None:
    """Whatever netcat the operator has, each answer arrives whole, also behind the end of input."""
    big = tmp_path / "big"
    lines = [b"Nov 20 15:02:00 lab kernel: %06d " % n + b"=" * 60 for n in range(10_000)]
    big.write_bytes(b"\n".join([*lines, b""]))
    program = start_at(start, socket_path, "--log", f"syslog={big}")
    for netcat in NETCATS:
        answer = converse(netcat, socket_path, b"test\nlastlog 10000\nexit\nping\n")
        assert answer == b"Command not found.\n" + block(lines), netcat
    for netcat in HALF_CLOSING:
        assert converse(netcat, socket_path, b"lastlog 2\nping") == block(lines[-2:]) + b"pong\n", netcat
    assert program.stop() == 0
    ends = [record["reason"] for record in program.rest() if record["action"] == "client-lost"]
    assert ends == ["exit"] * len(NETCATS) + ["closed"] * len(HALF_CLOSING)


def hash_of_seconds(folder: Path, size: int) -> bytes:
    """Ask for the hash of a sparse file."""
    path = folder / "sparse"
    with path.open("wb") as file:
        file.truncate(size)
    return b"comphash %s\n" % bytes(path)


async def test_a_client_that_shuts_its_sending_side_gets_its_answer(socket_path: str, tmp_path: Path) -> None:
    """``nc -N -U`` is not taken for a client that is gone."""
    async with running_at(socket_path) as it:
        async with await trio.open_unix_socket(socket_path) as client:
            await client.send_all(hash_of_seconds(tmp_path, 1 << 28))
            await it.sink.wait_for("command-received")
            await client.send_eof()
            assert (await read_all(client)).startswith(b"File hash is : ")
        (lost,) = await it.sink.wait_for("client-lost")
        assert lost["reason"] == "closed"


async def test_work_for_a_client_that_is_gone_is_cancelled_at_once(socket_path: str, tmp_path: Path) -> None:
    """The kernel tells at once that a unix client has closed; nothing works on for it."""
    async with running_at(socket_path) as it:
        async with await trio.open_unix_socket(socket_path) as client:
            await client.send_all(hash_of_seconds(tmp_path, 60 << 30))
            await it.sink.wait_for("command-received")
        with trio.fail_after(PATIENCE_SECONDS / 3):
            (lost,) = await it.sink.wait_for("client-lost")
        assert lost["reason"] == "reset"
        assert it.sink.actions("command-completed")[0]["outcome"] == "gone"


async def test_answer_is_not_followed_by_a_reset(socket_path: str) -> None:
    """A netcat that has sent more than was read ends without an error."""
    async with running_at(socket_path), await trio.open_unix_socket(socket_path) as client:
        await client.send_all(b"ping\nexit\n" + b"x\n" * 50_000)
        assert await read_all(client) == b"pong\n"  # a reset would raise


async def send_on(client: trio.SocketStream, data: bytes) -> None:
    """Send the same for ever, until the server closes."""
    with contextlib.suppress(trio.BrokenResourceError):
        while True:
            await client.send_all(data)


async def test_answer_is_not_lost_when_the_close_leaves_input_unread(socket_path: str) -> None:
    """A client that goes on sending for ever still reads what it was answered."""
    async with (
        running_at(socket_path),
        await trio.open_unix_socket(socket_path) as client,
        trio.open_nursery() as nursery,
    ):
        await client.send_all(b"ping\nexit\n")
        nursery.start_soon(send_on, client, b"x\n" * 50_000)
        assert await client.receive_some() == b"pong\n"


async def test_a_client_that_does_not_read_is_ended(socket_path: str) -> None:
    """Nobody fills the server's memory by not reading, over this socket either."""
    async with (
        running_at(socket_path, write_seconds=0.2) as it,
        await trio.open_unix_socket(socket_path) as client,
    ):
        await send_on(client, b"help\n" * 100)
        (lost,) = await it.sink.wait_for("client-lost")
    assert lost["reason"] == "slow-reader"


async def test_what_a_client_reads_is_seen_as_progress() -> None:
    """A client that reads slowly is told from one that does not read."""
    ours, theirs = socket.socketpair()
    with theirs:
        async with SocketStream(trio.SocketStream(trio.socket.from_stdlib_socket(ours))) as stream:
            stream.send_nowait(bytes(1 << 18))
            _, before = stream.waiting_bytes()
            theirs.recv(1 << 16, socket.MSG_WAITALL)
            _, after = stream.waiting_bytes()
    assert after < before


# The program


def start_at(start: StartProgram, path: str, *args: str) -> Program:
    """Start the program on a path only; it listens when this returns."""
    program = start("--host", "", "--unix-socket", path, *args)
    program.wait_for("listening", host="unix")
    return program


def ask(path: str, line: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_SECONDS)
        client.connect(path)
        client.sendall(line)
        return client.recv(1000)


def test_path_is_removed_by_a_stop_and_replaced_after_a_kill(start: StartProgram, socket_path: str) -> None:
    """A service starts again after every kind of end, without an operator."""
    killed = start_at(start, socket_path)
    killed.process.kill()
    killed.wait()
    assert os.path.lexists(socket_path)
    program = start_at(start, socket_path)
    assert ask(socket_path, b"ping\n") == b"pong\n"
    assert program.stop() == 0
    assert not os.path.lexists(socket_path)


def test_second_server_says_in_one_line_who_has_the_path(start: StartProgram, socket_path: str) -> None:
    """The operator reads what to do, and monitoring sees the exit code."""
    start_at(start, socket_path)
    second = start("--host", "", "--unix-socket", socket_path)
    assert second.wait() == 71
    assert second.errors() == (
        f"trio-cmd: cannot listen on '{socket_path}': another server holds '{socket_path}.lock'; "
        "stop that one, or choose another path with --unix-socket\n"
    )
    assert ask(socket_path, b"ping\n") == b"pong\n"


@pytest.mark.proof
def test_of_ten_servers_started_at_once_one_serves(start: StartProgram, socket_path: str) -> None:
    """A supervisor gone wild ends with one server that answers, and nine exit codes that say why not."""
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(socket_path)
    programs = [start("--host", "", "--unix-socket", socket_path) for _ in range(10)]
    wait_until(lambda: sum(program.process.poll() == 71 for program in programs) == 9, "nine give way")
    (winner,) = (program for program in programs if program.process.poll() is None)
    winner.wait_for("listening", host="unix")
    assert ask(socket_path, b"ping\n") == b"pong\n"
    assert winner.stop() == 0
    assert not os.path.lexists(socket_path)
