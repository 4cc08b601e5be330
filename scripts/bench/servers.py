"""The servers that are compared, ours and its peers, each a process with a record in a file.

A server is asked for what it has cost: CPU time and memory of itself, its threads and all that it
has started, also of what has ended since.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from kinds import STANDARD_OUTPUT, Kind, Place, program_path
from ports import LOOK_SECONDS, START_SECONDS, free_port, is_listening
from record import SETTLE_SECONDS, Record, Void
from usage import cpu_seconds, family, memory_bytes


class Server:
    """A server that runs: its port, what it has cost, and its record.

    Args:
        kind: what is started.
        folder: where its record is written.
        syslog: the file of ``lastlog``.
        stdout: a descriptor that gets the record, instead of a file.
    """

    def __init__(self, kind: Kind, folder: Path, syslog: Path, stdout: int | None = None) -> None:
        self.kind = kind
        self.name = kind.name
        number = len(os.listdir(folder))
        record = folder / f"{number}.record" if stdout is None else STANDARD_OUTPUT
        self.port = free_port()
        self.record = Record(record)
        env = {**os.environ, "PATH": program_path()}
        if kind.folder:
            env |= {"PYTHONPATH": kind.folder}
        self._errors = folder / f"{number}.errors"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                kind.command(Place(self.port, syslog, record)),
                stdin=subprocess.DEVNULL,
                stdout=errors if stdout is None else stdout,
                stderr=errors,
                env=env,
                start_new_session=True,  # what it leaves behind is known by its group
            )
        self.pid = self._process.pid
        self._orphans_seconds = 0.0

    def wait(self) -> None:
        """Wait until it listens, without connecting: whoever connects is recorded."""
        deadline = time.monotonic() + START_SECONDS
        while not is_listening(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.name} does not start: {self._errors.read_text()}")
            time.sleep(LOOK_SECONDS)

    def cpu_seconds(self) -> float:
        """CPU time of it and of all it has started, also of threads and children that have ended."""
        self._reap()
        return self._orphans_seconds + sum(map(cpu_seconds, family(self.pid)))

    def settle(self) -> None:
        """Wait until what it started for clients has ended and was waited for."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while len(family(self.pid)) > 1 or self._reap():
            if time.monotonic() > deadline:
                raise Void("what was started for a client does not end")
            time.sleep(LOOK_SECONDS)

    def _reap(self) -> bool:
        """Wait for orphans that have ended, and note their time; says whether some still live.

        socat and ncat do not wait for all they start; it becomes a child of this process.
        """
        is_left = False
        for pid in family(os.getpid(), generations=1)[1:]:
            if pid == self.pid or os.getpgid(pid) != self.pid:
                continue
            ended, _, usage = os.wait4(pid, os.WNOHANG)
            self._orphans_seconds += usage.ru_utime + usage.ru_stime
            is_left |= not ended
        return is_left

    def memory_bytes(self) -> int:
        """Memory of it and of all it has started, shared pages divided by those who share them."""
        return sum(map(memory_bytes, family(self.pid)))

    def stop(self) -> None:
        """End it, with what it has started."""
        os.killpg(self.pid, signal.SIGTERM)
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def running(
    kinds: list[Kind], folder: Path, syslog: Path, stdout: int | None = None
) -> Iterator[list[Server]]:
    """Have servers run, all at the same time."""
    with contextlib.ExitStack() as stack:
        servers = []
        for kind in kinds:
            servers.append(Server(kind, folder, syslog, stdout))
            stack.callback(servers[-1].stop)
        for server in servers:
            server.wait()
        yield servers
