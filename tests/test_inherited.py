"""Sockets held by whoever starts the server: systemd, or here the test itself."""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from conftest import StartProgram
from program import PATIENCE_SECONDS, free_port, read_all
from trio_cmd.cli import main
from trio_cmd.errors import ListenError, SettingsError
from trio_cmd.server import inherited
from trio_cmd.server.inherited import MAX_SOCKETS, Inherited, inherited_sockets, settings_of
from trio_cmd.settings import load

WriteSettings = Callable[[str], str]

FULL = os.environ.get("TRIO_CMD_FULL") == "1"
STOPPING = b"Server is stopping. bye !\n"
# What systemd does between fork and exec: the sockets from 3 on, and whose they are.
_ACTIVATE = """
import os, sys
for at, fd in enumerate(sys.argv[1].split(",")):
    os.dup2(int(fd), 3 + at)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


def activated(sockets: Sequence[socket.socket], **variables: str) -> dict[str, object]:
    """Give what starts the program with sockets, as systemd does."""
    fds = [sock.fileno() for sock in sockets]
    assert min(fds) >= 3 + len(fds), "one would be put over another"
    text = ",".join(map(str, fds))
    return {
        "prefix": (sys.executable, "-I", "-S", "-c", _ACTIVATE, text),
        "env": {"LISTEN_FDS": str(len(fds)), **variables},
        "pass_fds": fds,
    }


@pytest.fixture
def held() -> Iterator[Callable[..., socket.socket]]:
    """Make sockets as systemd does; they are closed with the test."""
    with contextlib.ExitStack() as stack:
        spare = [stack.enter_context(socket.socket()) for _ in range(8)]  # so that none is below 8

        def hold(address: object = ("127.0.0.1", 0), kind: int = socket.SOCK_STREAM) -> socket.socket:
            family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
            sock = stack.enter_context(socket.socket(family, kind))
            sock.bind(address)  # type: ignore[arg-type]  # of any family
            if kind != socket.SOCK_DGRAM:
                sock.listen(1024)
            return sock

        yield hold
        del spare


def ask(address: object, data: bytes) -> bytes:
    with socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_SECONDS)
        client.connect(address)  # type: ignore[arg-type]  # of any family
        client.sendall(data)
        return read_all(client)


def test_inherited_sockets_are_served_in_place_of_the_settings(
    start: StartProgram, held: Callable[..., socket.socket], socket_path: str
) -> None:
    """What systemd holds is where clients come; nothing else is listened on."""
    tcp, unix = held(), held(socket_path)
    names = {"LISTEN_FDNAMES": "front:trio-cmd.socket"}
    program = start("--unix-socket", socket_path + ".own", **activated([tcp, unix], **names))
    assert ask(socket_path, b"ping\nexit\n") == ask(tcp.getsockname(), b"ping\nexit\n") == b"pong\n"
    assert not os.path.lexists(socket_path + ".own")
    assert program.stop() == 0
    first, second = [record for record in program.rest() if record["action"] == "listening"]
    port = tcp.getsockname()[1]
    assert (first["host"], first["port"], first["inherited"]) == ("127.0.0.1", port, "front")
    assert (second["host"], second["path"], second["inherited"]) == ("unix", socket_path, "trio-cmd.socket")
    (stopping,) = program.actions("stopping")
    assert stopping["event"] == f"(TCP Port {port} Closed) (UNIX Port '{socket_path}' Closed)"
    assert os.path.lexists(socket_path), "the path belongs to whoever made it"


def test_children_get_neither_sockets_nor_variables(
    start: StartProgram, held: Callable[..., socket.socket], write_settings: WriteSettings
) -> None:
    """A program of the operator cannot accept the server's clients, nor speak to systemd in its name."""
    path = write_settings(
        '[programs.env]\nargv = ["/usr/bin/env"]\n[programs.fds]\nargv = ["/bin/ls", "/proc/self/fd"]\n'
    )
    sock = held()
    variables = {"NOTIFY_SOCKET": "/nonexistent", "WATCHDOG_USEC": "30000000", "LISTEN_FDNAMES": "x"}
    start("--config", path, **activated([sock], **variables))
    answer = ask(sock.getsockname(), b"env\nfds\nexit\n").decode()
    env, fds = answer.split("Begin fds\n")
    assert {line.partition("=")[0] for line in env.splitlines()[1:-1]} == {"PATH", "LC_ALL"}
    assert fds.splitlines()[:-1] == ["0", "1", "2", "3"]  # the last is the folder that ls reads


@pytest.mark.needs("systemd-socket-activate")
def test_systemd_starts_the_server_with_its_first_client(start: StartProgram) -> None:
    """The real one passes its sockets on, and the client that woke the server is answered."""
    port = free_port()
    listen = ("systemd-socket-activate", "-l", f"127.0.0.1:{port}", "--fdname=front")
    keep = [f"--setenv={name}" for name in os.environ if name.startswith(("PYTHON", "COV_", "COVERAGE_"))]
    program = start(prefix=(*listen, *keep))
    assert program.process.stderr is not None
    assert b"Listening on" in program.process.stderr.readline()
    assert ask(("127.0.0.1", port), b"ping\nexit\n") == b"pong\n"
    assert program.wait_for("listening", inherited="front")["port"] == port
    assert program.stop() == 0


def test_wrong_kind_is_refused_in_one_line(start: StartProgram, held: Callable[..., socket.socket]) -> None:
    """The operator who wrote ListenDatagram= reads what to write instead."""
    sock = held(kind=socket.SOCK_DGRAM)
    program = start(**activated([sock]))
    assert program.wait() == 71
    assert program.errors() == (
        "trio-cmd: cannot listen on the inherited sockets: descriptor 3: not a stream; "
        "pass stream sockets that listen: ListenStream= and Accept=no\n"
    )
    assert program.rest() == []


# What is told, and what is made of it


def variables(count: object = 1, **more: str) -> dict[str, str]:
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), **more}


def first_is(monkeypatch: pytest.MonkeyPatch, fd: int) -> None:
    monkeypatch.setattr(inherited, "FIRST_FD", fd)


def test_nothing_told_is_nothing_inherited() -> None:
    """Started by hand, or without a socket unit, the settings say where to listen."""
    assert inherited_sockets({}) == ()
    assert inherited_sockets({"LISTEN_PID": "", "LISTEN_FDS": ""}) == ()
    assert inherited_sockets(variables(0)) == ()


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"LISTEN_FDS": "1"}, "LISTEN_PID is not this process"),
        ({"LISTEN_PID": "1", "LISTEN_FDS": "1"}, "LISTEN_PID is not this process"),
        (variables("one"), "LISTEN_FDS is 'one'; pass 1 to 16 sockets"),
        (variables(-1), "LISTEN_FDS is '-1'"),
        (variables("²"), "LISTEN_FDS is"),
        (variables(""), "LISTEN_FDS is ''"),
        (variables(MAX_SOCKETS + 1), "LISTEN_FDS is '17'"),
        (variables("9" * 5000), "LISTEN_FDS is"),
        (variables(2, LISTEN_FDNAMES="a"), "LISTEN_FDNAMES has 1 names for 2 sockets"),
        (variables(1, LISTEN_FDNAMES="a:b"), "LISTEN_FDNAMES has 2 names for 1 sockets"),
    ],
)
def test_variables_that_make_no_sense_are_refused(told: dict[str, str], reason: str) -> None:
    """A server that listened elsewhere than the operator believes would be worse than none."""
    with pytest.raises(ListenError, match="cannot listen on the inherited sockets: ") as caught:
        inherited_sockets(told)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_served_is_refused(
    monkeypatch: pytest.MonkeyPatch, held: Callable[..., socket.socket], socket_path: str, tmp_path: Path
) -> None:
    """Each mistake in a socket unit has its own line."""
    deaf = socket.socket()
    deaf.bind(("127.0.0.1", 0))
    with (
        deaf,
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as netlink,
        open(tmp_path / "file", "w") as file,
    ):
        first_is(monkeypatch, netlink.fileno())
        for fd, reason in {
            held(kind=socket.SOCK_DGRAM).fileno(): "not a stream",
            held(socket_path, socket.SOCK_SEQPACKET).fileno(): "not a stream",
            held(f"\0trio-cmd-test-{os.getpid()}").fileno(): "it has no path, so no mode keeps anybody out",
            netlink.fileno(): "neither TCP nor a unix socket",
            deaf.fileno(): "it does not listen",
            file.fileno(): "Socket operation on non-socket",
            1000: "Bad file descriptor",
        }.items():
            first_is(monkeypatch, fd)
            with pytest.raises(ListenError, match=f"descriptor {fd}: {reason}; pass stream sockets"):
                inherited_sockets(variables())


def test_inherited_socket_is_kept_from_children_at_once(
    monkeypatch: pytest.MonkeyPatch, held: Callable[..., socket.socket]
) -> None:
    """Whatever is started later, by whatever library, does not hold the port."""
    sock = held()
    sock.set_inheritable(True)
    first_is(monkeypatch, sock.fileno())
    (it,) = inherited_sockets(variables(LISTEN_FDNAMES="a\x1bb"))
    assert it == (sock.fileno(), "a\\x1bb", "127.0.0.1", sock.getsockname()[1], "")
    assert not os.get_inheritable(sock.fileno())
    assert inherited_sockets(variables())[0].name == "unknown"


# Exposing is said aloud


def test_most_exposed_socket_is_the_one_that_is_judged() -> None:
    """One socket that other hosts can reach is enough, wherever it stands in the row."""
    local, mapped = Inherited(3, "", "127.0.0.1", 1), Inherited(3, "", "::1", 4)
    far, unix = Inherited(4, "", "0.0.0.0", 2), Inherited(5, "", "unix", 0, "/run/s")
    assert settings_of([local, mapped]).values == {
        "server": {"host": "127.0.0.1", "port": 1, "unix_socket": ""}
    }
    assert settings_of([unix, local, far]).values == {
        "server": {"host": "0.0.0.0", "port": 2, "unix_socket": "/run/s"}
    }
    assert settings_of([unix]).values == {"server": {"host": "", "port": 0, "unix_socket": "/run/s"}}
    load([settings_of([local, unix])])
    load([settings_of([unix])])
    with pytest.raises(SettingsError, match=r"0\.0\.0\.0 can be reached from other hosts; say which ones"):
        load([settings_of([local, far])])


def test_inherited_socket_exposes_only_what_was_said_aloud(
    monkeypatch: pytest.MonkeyPatch, held: Callable[..., socket.socket], capfd: pytest.CaptureFixture[str]
) -> None:
    """A socket unit opens the server to other hosts only together with grants and roots."""
    far = held(("0.0.0.0", 0))
    first_is(monkeypatch, far.fileno())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["--check-config"], variables()) == 78
    assert "say which ones: --allow NETWORK" in capfd.readouterr().err
    said = ["--check-config", "--allow", "10.0.0.0/8", "--root", "/etc"]
    assert main(said, variables()) == 0
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert main(said, variables()) == 78
    assert "--allow-root" in capfd.readouterr().err


# A restart under load


class Load:
    """Clients that come one after the other, and ask again when they are told that the server stops."""

    def __init__(self, address: object, stop: threading.Event) -> None:
        self.answered = self.told = 0
        self.errors: list[object] = []
        self._address = address
        self._stop = stop
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set() and not self.errors:
            try:
                answer = ask(self._address, b"ping\nexit\n")
            except OSError as error:
                self.errors.append(error)
                return
            self.answered += answer == b"pong\n"
            self.told += answer == STOPPING
            if answer not in (b"pong\n", STOPPING):
                self.errors.append(answer)


def restart_under_load(start: StartProgram, sock: socket.socket, times: int) -> list[Load]:
    stop = threading.Event()
    clients = [Load(sock.getsockname(), stop) for _ in range(4)]
    try:
        for _ in range(times):
            program = start(**activated([sock]))
            program.wait_for("client-lost", reason="exit")  # it has answered somebody
            assert program.stop() == 0
        last = start(**activated([sock]))  # those that wait in the kernel are answered by the next
        last.wait_for("client-lost", reason="exit")
    finally:
        stop.set()
        for client in clients:
            client.join()
    return clients


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_restart_under_load_refuses_nobody(
    start: StartProgram, held: Callable[..., socket.socket], socket_path: str, kind: str
) -> None:
    """Every connection is accepted and every question answered while servers come and go."""
    sock = held(socket_path) if kind == "unix" else held()
    times = 20 if FULL else 2
    clients = restart_under_load(start, sock, times)
    assert [error for client in clients for error in client.errors] == []
    assert all(client.answered for client in clients)
    # Once by each server, and now and then again by one that has not yet noticed that it stops.
    assert all(client.told <= 5 * times for client in clients), "nobody is turned away again and again"
