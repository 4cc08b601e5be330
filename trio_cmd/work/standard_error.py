"""What a child says on standard error enters; a sign that it has, and in the end its last line, leave."""

import os
from typing import Self

import trio

from trio_cmd.errors import CommandFailed, ProgramFailed
from trio_cmd.escape import escape
from trio_cmd.tokens import TOKEN_CHARACTERS
from trio_cmd.work.feed import Feed

__all__ = ["StandardError"]

SAID_BYTES = 4096


class StandardError:
    """What a child says on standard error: never a line of the log, but a sign that the log was replaced.

    Args:
        feed: held back whenever something was said.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._said = b""
        self._news = trio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._read_fd)
        os.close(self.write_fd)

    @property
    def has_news(self) -> bool:
        """Whether something was said that nobody has waited for."""
        return self._news.is_set()

    async def run(self) -> None:
        """Read until cancelled, so that the child never waits."""
        while True:
            await trio.lowlevel.wait_readable(self._read_fd)
            self.read()

    def read(self) -> None:
        """Read what was said by now."""
        while said := self._read_some():
            self._said = _last_line(self._said + said)
            self._feed.hold()
            self._news.set()

    async def wait(self) -> None:
        """Wait until something is said.

        Cancel: nothing is left behind.
        """
        await self._news.wait()
        self._news = trio.Event()

    def explain(self, program: str, exit_status: int) -> CommandFailed:
        """Say why a child ended that should not have, with the last it said."""
        self.read()
        error = ProgramFailed(program, exit_status)
        last = self._said.rstrip(b"\n")
        if len(last) == SAID_BYTES:  # perhaps cut in a token, whose piece would not be known for one
            last = last.rstrip(TOKEN_CHARACTERS)
        if last:
            error.message += f": {escape(last)}"
        return error

    def _read_some(self) -> bytes:
        try:
            return os.read(self._read_fd, SAID_BYTES)
        except BlockingIOError:
            return b""


def _last_line(said: bytes) -> bytes:
    """Keep the beginning of the last line, and whether it has ended."""
    line = said[said.rstrip(b"\n").rfind(b"\n") + 1 :]
    end = b"\n" if line.endswith(b"\n") else b""
    return line.rstrip(b"\n")[:SAID_BYTES] + end
