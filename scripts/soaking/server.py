"""The server as a process: its record is read as it is written, its samples are taken each second."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import trio

from soaking.growth import Sample
from soaking.place import Place
from soaking.records import RecordChecker

__all__ = ["Server", "wait_until"]

PATIENCE_SECONDS = 30.0
READ_BYTES = 1 << 20
POLL_SECONDS = 0.02


class Server:
    """A server in a place.

    Args:
        place: furnished.

    Attributes:
        checker: of its record.
        samples: so far.
        rotations: how often its log was renamed.
    """

    def __init__(self, place: Place) -> None:
        self._folder = place.folder
        self._log = place.folder / "record"
        self._errors = place.folder / "errors"
        self.checker = RecordChecker(is_secured=place.is_secured)
        self.samples: list[Sample] = []
        self.rotations = 0
        command = [sys.executable, "-P", "-m", "trio_cmd", "--port", "0", "--log-format", "json"]
        options = ["--config", str(place.config), "--log-file", str(self._log)]
        environ = {name: text for name, text in os.environ.items() if not name.startswith("TRIO_CMD_")}
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*command, *options], stdin=subprocess.DEVNULL, stderr=errors, env=environ
            )
        self._began = trio.current_time()

    # Its record

    async def read_record(self) -> None:
        """Feed the record to the checker as it is written, through all rotations, until cancelled."""
        number = 0
        while True:
            with await self._open(number) as file:
                rest = await self._read_whole(file, number)
            if rest:
                self.checker.faults.append(f"record file {number} ends in the middle: {rest[:200]!r}")
            (self._folder / f"record.{number}").unlink()
            number += 1

    async def _open(self, number: int) -> BinaryIO:
        """Open the file of this number: renamed already, or still written to."""
        while True:
            for path in (self._folder / f"record.{number}", self._log):
                if path.exists() and (number < self.rotations or path == self._log):
                    return path.open("rb")
            await trio.sleep(POLL_SECONDS)

    async def _read_whole(self, file: BinaryIO, number: int) -> bytes:
        """Read a file until nothing more can come; returns what is no line."""
        rest = b""
        while True:
            # Asked before it is read: what comes afterwards comes to the next file.
            is_over = number < self.rotations and not self._holds(file)
            if data := file.read(READ_BYTES):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self.checker.feed(line)
                await trio.lowlevel.checkpoint()
            elif is_over:
                return rest
            else:
                await trio.sleep(POLL_SECONDS)

    def _holds(self, file: BinaryIO) -> bool:
        """Tell whether the server has the file open."""
        mine = os.fstat(file.fileno())
        return any(os.path.samestat(mine, theirs) for theirs in self._open_files())

    def _open_files(self) -> list[os.stat_result]:
        found = []
        for path in Path(f"/proc/{self.process.pid}/fd").glob("*"):
            try:
                found.append(path.stat())
            except OSError:
                continue  # closed meanwhile
        return found

    def rename_log(self) -> None:
        """Rename the log as logrotate does."""
        self._log.rename(self._folder / f"record.{self.rotations}")
        self.rotations += 1

    async def wait_for_new_log(self) -> None:
        """Wait until the log is there again."""
        await wait_until(self._log.exists, "a new log after a rotation")

    async def wait_for_port(self) -> int:
        """Give the port it listens on."""
        await wait_until(lambda: self.checker.actions["listening"] > 1, "the server listens")
        return self.checker.port

    # What it is made of

    async def take_samples(self) -> None:
        """Take a sample each second, until cancelled."""
        while True:
            self.samples.append(await self._sample())
            await trio.sleep(1)

    async def _sample(self) -> Sample:
        self.signal(signal.SIGUSR2)
        await wait_until(lambda: len(self.checker.reports) > 0, "a report")
        report = self.checker.reports.pop()
        self.checker.reports.clear()
        return Sample(
            trio.current_time() - self._began,
            report["descriptors"],
            self._count_threads(),
            self._count_children(),
            report["tasks"]["count"],
            report["memory"].get("pss_bytes", 0),
            tuple(self._name_open_files()),
        )

    def _name_open_files(self) -> Iterator[str]:
        """Give what the descriptors are of; the numbers of sockets and pipes tell nothing."""
        for path in Path(f"/proc/{self.process.pid}/fd").glob("*"):
            with suppress(OSError):  # closed meanwhile
                yield str(path.readlink()).partition("[")[0]

    def _count_threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def _count_children(self) -> int:
        lists = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return sum(len(_read(children).split()) for children in lists)

    # Its end

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def stop(self) -> None:
        """Stop it, and read its last records.

        Raises:
            TimeoutError: it does not end.
        """
        self.signal(signal.SIGTERM)
        await wait_until(lambda: self.process.poll() is not None, "the end of the server")
        await wait_until(lambda: self.checker.actions["stopped"] > 0, "the record of the end")

    def faults(self) -> list[str]:
        """Say what was wrong with its end, and what it said on standard error."""
        code, errors = self.process.poll(), _read(self._errors)
        faults = [] if code == 0 else [f"the exit code is {code}"]
        return [*faults, f"on standard error: {errors[-2000:]}"] if errors else faults

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def _read(path: Path) -> str:
    """Read a small file; nothing of one that has gone."""
    try:
        return path.read_text()
    except OSError:
        return ""


async def wait_until(is_true: Callable[[], bool], what: str) -> None:
    """Wait for something that no event tells of.

    Raises:
        TimeoutError: it does not come.
    """
    with trio.move_on_after(PATIENCE_SECONDS):
        while not is_true():
            await trio.sleep(POLL_SECONDS)
        return
    raise TimeoutError(f"not in {PATIENCE_SECONDS:g} s: {what}")
