"""The record on its way: rotated by the real logrotate, read and forwarded by the real rsyslog and syslog-ng.

The files of ``deploy/`` are used as they are, but for paths, addresses and how the server is told.
"""

import gzip
import json
import os
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from conftest import StartLogged
from program import PATIENCE_SECONDS, LoggedProgram, wait_until

pytestmark = pytest.mark.proof

DEPLOY = Path(__file__).parent.parent / "deploy"
LOG = "/var/log/trio-cmd/trio-cmd.log"
ROTATIONS = 3
EVENTS = 20_000 if os.environ.get("TRIO_CMD_FULL") == "1" else 4_000


def deployed(name: str, **replaced: str) -> str:
    """Read a file of ``deploy/`` with some of its texts replaced, each of which must be there."""
    text = (DEPLOY / name).read_text()
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    return text


class Collector:
    """The other end of a shipper: takes lines over TCP."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.lines: list[bytes] = []
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self._thread.join(PATIENCE_SECONDS)

    def has(self, count: int) -> bool:
        """Whether so many lines have come."""
        return len(self.lines) >= count

    def _collect(self) -> None:
        client, _ = self._server.accept()
        with client, client.makefile("rb") as lines:
            self.lines.extend(lines)


@contextmanager
def running(*command: str, folder: Path) -> Iterator[None]:
    """Run a daemon in the foreground until the end; what it says is shown when a test fails."""
    with open(folder / "said", "wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, cwd=folder)
        try:
            yield
            assert process.poll() is None, (folder / "said").read_text()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_SECONDS)
            print((folder / "said").read_text())


@contextmanager
def rsyslog(folder: Path, log: Path, port: int) -> Iterator[None]:
    config = folder / "rsyslog.conf"
    text = deployed("rsyslog.conf", **{LOG: str(log), "collector.example": "127.0.0.1", "6514": str(port)})
    config.write_text(f'global(workDirectory="{folder}")\n{text}')
    with running("rsyslogd", "-n", "-f", str(config), "-i", str(folder / "pid"), folder=folder):
        yield


@contextmanager
def syslog_ng(folder: Path, log: Path, port: int) -> Iterator[None]:
    config = folder / "syslog-ng.conf"
    text = deployed("syslog-ng.conf", **{LOG: str(log), "collector.example": "127.0.0.1", "6514": str(port)})
    config.write_text(f"@version: 3.35\n{text}")
    files = [f"--{kind}={folder / kind}" for kind in ("persist-file", "pidfile", "control")]
    with running("syslog-ng", "-F", "--no-caps", f"--cfgfile={config}", *files, folder=folder):
        yield


SHIPPERS = {"rsyslog": rsyslog, "syslog-ng": syslog_ng}


class Rotation:
    """The real logrotate with the deployed file."""

    def __init__(self, folder: Path, log: Path, pid: int) -> None:
        tell = "systemctl kill --kill-whom=main --signal=HUP trio-cmd.service"
        self._config = folder / "logrotate.conf"
        self._config.write_text(deployed("logrotate.conf", **{LOG: str(log), tell: f"kill -HUP {pid}"}))
        self._config.chmod(0o600)
        self._state = folder / "logrotate.state"

    def rotate(self) -> None:
        command = ["logrotate", "--force", "--state", str(self._state), str(self._config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        assert (done.returncode, done.stderr) == (0, "")


def identity(line: bytes) -> tuple[str, int | None, int | None]:
    """Tell the events of commands from all others: which of the two, of which connection and request."""
    record = json.loads(line)
    if "trio_cmd" in record:
        record = {"action": record["event"]["action"], **record["trio_cmd"]}
    return record["action"], record.get("connection"), record.get("request")


def read_disk(log: Path) -> list[bytes]:
    """All lines of the log and of what it was rotated to, compressed or not."""
    found: list[bytes] = []
    for path in log.parent.glob(f"{log.name}*"):
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            found += file
    return found


def ask(client: socket.socket, count: int) -> None:
    """Cause so many events on a connection."""
    commands = count // 2
    client.sendall(b"ping\n" * commands)
    answer = b""
    while len(answer) < len(b"pong\n") * commands:
        answer += client.recv(1 << 16)


def rotate_under_load(program: LoggedProgram, rotation: Rotation, wait: Callable[[int], None]) -> None:
    """Cause the events in parts, and rotate in the middle of each but the first."""
    part = EVENTS // (ROTATIONS + 1)
    with program.connect() as client:
        for number in range(ROTATIONS + 1):
            asking = threading.Thread(target=ask, args=(client, part))
            asking.start()
            if number:
                rotation.rotate()
            asking.join(PATIENCE_SECONDS)
            wait((number + 1) * part)


def ship_and_rotate(schema: str, start_logged: StartLogged, folder: Path) -> None:
    """Let both shippers follow one server through the rotations, and compare what arrived with the disk."""
    log = folder / "log" / "trio-cmd.log"
    log.parent.mkdir(parents=True)
    config = folder / "trio-cmd.toml"
    config.write_text(f'[logging]\nschema = "{schema}"\n')
    config.chmod(0o600)
    program = start_logged(log, "--config", str(config))
    assert program.port
    collectors: dict[str, Collector] = {}
    with ExitStack() as stack:
        for name, ship in SHIPPERS.items():
            (folder / name).mkdir()
            collectors[name] = stack.enter_context(Collector())
            stack.enter_context(ship(folder / name, log, collectors[name].port))

        def wait(count: int) -> None:
            for name, collector in collectors.items():
                wait_until(partial(collector.has, count), f"{name} has {count} {schema} events")

        rotate_under_load(program, Rotation(folder, log, program.pid), wait)
        assert program.stop() == 0
        on_disk = Counter(map(identity, read_disk(log)))
        wait(on_disk.total())
    commands = {key: count for key, count in on_disk.items() if key[0].startswith("command-")}
    assert len(commands) == EVENTS
    assert set(commands.values()) == {1}
    assert len(list(log.parent.glob("*.gz"))) == ROTATIONS - 1
    for name, collector in collectors.items():
        assert Counter(map(identity, collector.lines)) == on_disk, name


@pytest.mark.needs("logrotate", "rsyslogd", "syslog-ng")
def test_no_event_is_lost_or_shipped_twice_while_the_log_is_rotated(
    start_logged: StartLogged, tmp_path: Path
) -> None:
    """What was asked can be found at the collector, whichever shipper and schema an operator has."""
    with ThreadPoolExecutor() as threads:  # side by side: they wait most of the time
        done = [
            threads.submit(ship_and_rotate, schema, start_logged, tmp_path / schema)
            for schema in ("plain", "ecs")
        ]
    for each in done:
        each.result()
