"""What systemd is told, read by a real datagram socket in its place."""

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import trio

from conftest import StartProgram
from conversation import ListSink
from program import PATIENCE_SECONDS, Program
from trio_cmd.records import make_logger
from trio_cmd.records.render import render_json
from trio_cmd.server import systemd
from trio_cmd.server.systemd import VARIABLES, Notifier, take_variables

READY = "READY=1\nSTATUS=Listening: 0 of 100 clients, 0 grants, 0 refused, 0 log events lost"
WATCHDOG = "WATCHDOG=1"


class Manager:
    """The socket that systemd listens on for what its services say."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(PATIENCE_SECONDS)

    def hear(self) -> str:
        """Read what is said next."""
        return self.socket.recv(4096).decode()

    def hear_until(self, text: str) -> str:
        """Read until something with this in it is said."""
        while text not in (said := self.hear()):
            pass
        return said

    def hear_all(self) -> list[str]:
        """Read what has been said already."""
        said = []
        while self._has_heard(0):
            said.append(self.hear())
        return said

    def is_silent(self, seconds: float) -> bool:
        """Tell whether nothing more is said for so long."""
        self.hear_all()
        return not self._has_heard(seconds)

    def _has_heard(self, seconds: float) -> bool:
        return bool(select.select([self.socket], [], [], seconds)[0])


@pytest.fixture
def manager(socket_path: str) -> Iterator[Manager]:
    """What the service reports to."""
    it = Manager(socket_path)
    with it.socket:
        yield it


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


def notifying(told: Mapping[str, str], sink: ListSink) -> Notifier:
    return Notifier(told, make_logger(sink, render_json))


def answers(program: Program) -> bool:
    with program.connect() as client:
        client.sendall(b"ping\n")
        return client.recv(100) == b"pong\n"


# The server


def test_systemd_learns_when_a_reload_begins_and_when_it_is_over(
    start: StartProgram, manager: Manager, socket_path: str, write_settings: Callable[[str], str]
) -> None:
    """``systemctl reload`` comes back when the settings are in force, or are refused, and not before."""
    path = write_settings("")
    program = start("--config", path, env={"NOTIFY_SOCKET": socket_path})
    assert manager.hear().startswith("READY=1\n")
    for text in ("[server]\nmax_clients = 5\n", "[server]\nmax_clients = 0\n"):
        write_settings(text)
        before = time.monotonic_ns() // 1000
        program.process.send_signal(signal.SIGHUP)
        first, second = manager.hear_until("RELOADING=1").split("\n")
        name, _, number = second.partition("=")
        assert (first, name) == ("RELOADING=1", "MONOTONIC_USEC")
        assert before <= int(number) <= time.monotonic_ns() // 1000
        assert manager.hear_until("READY=1").startswith("READY=1\nSTATUS=Listening: 0 of 5 clients")
    assert program.stop() == 0
    assert not any("READY" in said for said in manager.hear_all())


def test_systemd_learns_when_the_server_listens_and_when_it_stops(
    start: StartProgram, manager: Manager, socket_path: str
) -> None:
    """What is ordered after the service starts when clients can come, and not before."""
    program = start(env={"NOTIFY_SOCKET": socket_path})
    assert manager.hear() == READY
    assert answers(program)
    assert program.stop() == 0
    said = manager.hear()
    assert said.startswith("STOPPING=1\nSTATUS=Stopping (SIGTERM): ")
    assert manager.hear_all() == []


def test_failed_start_is_never_called_ready(start: StartProgram, manager: Manager, socket_path: str) -> None:
    """A unit whose port is taken fails, instead of standing there as active."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        program = start("--port", port, env={"NOTIFY_SOCKET": socket_path})
        assert program.wait() == 71
    assert manager.hear_all() == []


def test_frozen_server_gives_no_sign_of_life(start: StartProgram, manager: Manager, socket_path: str) -> None:
    """WatchdogSec= ends a process that lives and serves nobody."""
    program = start(env={"NOTIFY_SOCKET": socket_path, "WATCHDOG_USEC": "100000"})
    manager.hear_until(WATCHDOG)
    manager.hear_until(WATCHDOG)
    program.process.send_signal(signal.SIGSTOP)
    try:
        os.waitpid(program.pid, os.WUNTRACED)  # all of its threads stand still
        assert manager.is_silent(0.5)
    finally:
        program.process.send_signal(signal.SIGCONT)
    manager.hear_until(WATCHDOG)
    assert program.stop() == 0


def test_server_lives_without_the_socket_it_was_told_of(start: StartProgram, tmp_path: Path) -> None:
    """A wrong variable costs a line in the record, and no client."""
    program = start(env={"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "10000"})
    assert answers(program)
    assert program.stop() == 0
    told = [record["event"] for record in program.rest() if record["action"] == "message"]
    assert [text for text in told if "systemd" in text] == [
        "systemd cannot be told how the server is: [Errno 2] No such file or directory"
    ]


# The event loop


async def run_notifier(notifier: Notifier, status: str = "fine") -> None:
    await notifier.run(lambda: status)


async def test_blocked_loop_gives_no_sign_of_life(manager: Manager, socket_path: str, sink: ListSink) -> None:
    """The sign of life comes from the loop itself: a thread would go on saying that all is well."""
    told = {"NOTIFY_SOCKET": socket_path, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}
    with notifying(told, sink) as notifier:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_notifier, notifier)
            for _ in range(3):
                await trio.to_thread.run_sync(manager.hear_until, WATCHDOG)
            assert manager.is_silent(0.5)  # waits in the loop, and so blocks it
            await trio.to_thread.run_sync(manager.hear_until, WATCHDOG)
            nursery.cancel_scope.cancel()
    assert notifier.failed == 0


async def test_status_is_said_when_it_changes(
    manager: Manager, socket_path: str, sink: ListSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``systemctl status`` shows how many clients there are, without a stream of words to systemd."""
    monkeypatch.setattr(systemd, "STATUS_SECONDS", 0.01)
    states = ["old", "old", "new", "new", "last"]
    with notifying({"NOTIFY_SOCKET": socket_path}, sink) as notifier:
        notifier.ready("old")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notifier.run, lambda: states.pop(0) if len(states) > 1 else states[0])
            heard = [await trio.to_thread.run_sync(manager.hear) for _ in range(3)]
            nursery.cancel_scope.cancel()
    assert heard == ["READY=1\nSTATUS=old", "STATUS=new", "STATUS=last"]


async def test_status_is_not_said_with_every_sign_of_life(
    manager: Manager, socket_path: str, sink: ListSink
) -> None:
    """At most once in some seconds, however short the watchdog's time is."""
    told = {"NOTIFY_SOCKET": socket_path, "WATCHDOG_USEC": "2000"}
    with notifying(told, sink) as notifier:
        notifier.ready("0")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_notifier, notifier, "1")
            heard = [await trio.to_thread.run_sync(manager.hear) for _ in range(20)]
            nursery.cancel_scope.cancel()
    assert set(heard[1:]) == {WATCHDOG}


async def test_nothing_runs_without_a_manager(sink: ListSink) -> None:
    """A server started by hand pays nothing."""
    with notifying({"WATCHDOG_USEC": "1000"}, sink) as notifier, trio.fail_after(PATIENCE_SECONDS):
        notifier.ready("fine")
        await run_notifier(notifier)
    assert (notifier.failed, sink.records) == (0, [])


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "9" * 5000},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
def test_watchdog_is_only_what_is_meant_for_this_process(told: dict[str, str]) -> None:
    """What another process was promised, or what is no number, is no promise of ours."""
    assert systemd._watchdog_seconds(told) == 0


# What is said


def test_reload_is_said_with_its_time(manager: Manager, socket_path: str, sink: ListSink) -> None:
    """``systemctl reload`` waits for the end of a reload that began after it was asked for."""
    before = time.monotonic_ns() // 1000
    with notifying({"NOTIFY_SOCKET": socket_path}, sink) as notifier:
        notifier.reloading()
        notifier.ready("fine")
    first, second = manager.hear().split("\n")
    assert first == "RELOADING=1"
    name, _, microseconds = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.monotonic_ns() // 1000
    assert manager.hear() == "READY=1\nSTATUS=fine"


def test_abstract_name_is_spoken_to(sink: ListSink) -> None:
    """Some managers listen on a name that is no path."""
    name = f"trio-cmd-test-{os.getpid()}"
    it = Manager(f"\0{name}")
    with it.socket, notifying({"NOTIFY_SOCKET": f"@{name}"}, sink) as notifier:
        notifier.stopping("bye")
        assert it.hear() == "STOPPING=1\nSTATUS=bye"


async def test_full_manager_is_not_waited_for(manager: Manager, socket_path: str, sink: ListSink) -> None:
    """A systemd that is busy cannot stop the server; what it misses is counted, and said once."""

    def say_much() -> None:
        while notifier.failed < 3:
            notifier.reloading()

    with notifying({"NOTIFY_SOCKET": socket_path}, sink) as notifier, trio.fail_after(PATIENCE_SECONDS):
        await trio.to_thread.run_sync(say_much, abandon_on_cancel=True)
    (record,) = sink.records
    assert (record["level"], record["action"]) == ("warning", "message")
    assert "Resource temporarily unavailable" in record["event"]


def test_variables_leave_the_environment() -> None:
    """No library and no child finds what was meant for the server."""
    environ = dict.fromkeys(VARIABLES, "1") | {"PATH": "/bin"}
    assert take_variables(environ) == dict.fromkeys(VARIABLES, "1")
    assert environ == {"PATH": "/bin"}
