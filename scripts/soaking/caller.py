"""One client: a connection enters, whole lines and answers leave, in time or not at all."""

import json
import random
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import trio

from soaking.accounts import Ledger
from soaking.place import Place
from soaking.questions import Question, find_answer
from soaking.secured import Secured

__all__ = ["Caller", "Refused", "Unheard", "World", "WrongAnswer"]

PATIENCE_SECONDS = 30.0
REFUSED = b"Too many connections. bye !"


class WrongAnswer(Exception):
    """What was answered is not right."""


class Refused(Exception):
    """There were too many clients, and it was said."""


class Unheard(Exception):
    """The connection was closed before a word came, as of one refusal too many at a time."""


@dataclass(frozen=True, slots=True)
class World:
    """What a client knows.

    Attributes:
        place: what can be asked for.
        rng: its own, so that a seed gives the same clients.
        ledger: what all clients have seen.
        port: of the server.
        name: of this client, among all.
    """

    place: Place
    rng: random.Random
    ledger: Ledger
    port: int
    name: str

    async def connect(self, source: str = "127.0.0.1", receive_bytes: int = 0) -> "Caller":
        """Connect, and shake hands where TLS is spoken.

        Args:
            source: the address to come from, or ``unix``.
            receive_bytes: how much the kernel takes for a client that does not read; 0: as usual.

        Raises:
            Unheard: the server has closed in the handshake.
        """
        client = await self._connect(source, receive_bytes)
        if self.place.context is None or source == "unix":
            return Caller(client, self.ledger)
        secured = Secured(client, self.place.context, is_polite=self.rng.random() < 0.5)
        try:
            with trio.fail_after(PATIENCE_SECONDS):
                await secured.shake_hands()
        except ssl.SSLCertVerificationError:
            raise
        except OSError:
            client.close()
            raise Unheard from None
        return Caller(secured, self.ledger)

    async def connect_plainly(self) -> "Caller":
        """Connect without a handshake, whatever is spoken there."""
        return Caller(await self._connect("127.0.0.1"), self.ledger)

    async def _connect(self, source: str, receive_bytes: int = 0) -> trio.socket.SocketType:
        is_unix = source == "unix"
        client = trio.socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET, socket.SOCK_STREAM)
        if receive_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if is_unix:
            await client.connect(str(self.place.folder / "socket"))
        else:
            await client.bind((source, 0))
            await client.connect(("127.0.0.1", self.port))
        self.ledger.connections += 1
        return client


class Caller:
    """A client's end of a connection.

    Args:
        client: connected.
        ledger: counts answers.
    """

    def __init__(self, client: trio.socket.SocketType | Secured, ledger: Ledger) -> None:
        self._client = client
        self._ledger = ledger
        self._heard = bytearray()
        self._has_heard = False
        self._requests = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.close()
        await trio.lowlevel.checkpoint()

    async def send(self, data: bytes) -> None:
        """Send all.

        Raises:
            Refused, Unheard: there were too many clients.
            WrongAnswer: the server has closed in the middle.
        """
        if not await self.try_send(data):
            raise self._cut(await self.rest())

    async def try_send(self, data: bytes) -> bool:
        """Send all, or what a server that closes takes; returns whether it was all."""
        view = memoryview(data)
        try:
            while view:
                view = view[await self._client.send(view) :]
        except OSError:
            return False
        return True

    async def end(self) -> None:
        """Shut the sending side, as ``nc -N`` does."""
        if isinstance(self._client, Secured):
            await self._client.send_eof()
        else:
            self._client.shutdown(socket.SHUT_WR)

    async def break_seal(self, data: bytes) -> None:
        """Send something unsealed in the middle of TLS."""
        assert isinstance(self._client, Secured)
        await self._client.send_unsealed(data)

    def reset(self) -> None:
        """Close with a reset, as a client that dies does."""
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._client.close()

    async def receive(self, size: int = 1 << 16) -> bytes:
        """Take what comes; nothing is the end.

        Raises:
            WrongAnswer: nothing comes.
            ConnectionError: a reset comes.
        """
        with trio.move_on_after(PATIENCE_SECONDS):
            piece = await self._client.recv(size)
            self._has_heard |= bool(piece)
            return piece
        raise WrongAnswer(f"nothing in {PATIENCE_SECONDS:g} s after {bytes(self._heard[-200:])!r}")

    async def rest(self) -> bytes:
        """Take all until the end; a reset is one too."""
        try:
            while piece := await self.receive():
                self._heard += piece
        except ConnectionError:
            pass
        rest, self._heard = bytes(self._heard), bytearray()
        return rest

    async def line(self) -> str:
        """Take a line.

        Raises:
            Refused, Unheard: there are too many clients.
            WrongAnswer: the connection ends, or nothing comes.
        """
        while (end := self._heard.find(b"\n")) < 0:
            try:
                piece = await self.receive()
            except ConnectionError:
                piece = b""
            if not piece:
                raise self._cut(bytes(self._heard))
            self._heard += piece
        line = bytes(self._heard[:end])
        del self._heard[: end + 1]
        if line == REFUSED:
            raise Refused
        return line.decode()

    async def text_answer(self) -> list[str]:
        """Take an answer: a line, or a block."""
        lines = [await self.line()]
        if lines[0].startswith("Begin "):
            end = "End " + lines[0].removeprefix("Begin ")
            while lines[-1] != end:
                lines.append(await self.line())
        return lines

    async def json_answer(self) -> Mapping[str, Any]:
        """Take an answer as an object; what comes before it is passed over."""
        while "event" in (answer := json.loads(await self.line())):
            pass
        assert isinstance(answer, dict)
        return answer

    async def expect(self, question: Question, *, is_json: bool = False) -> None:
        """Take the answer to a question.

        Raises:
            WrongAnswer: it is not right.
        """
        got: Mapping[str, Any] | Sequence[str]
        got = await (self.json_answer() if is_json else self.text_answer())
        self._requests += 1
        answer = find_answer(question, got)
        if answer is None:
            raise WrongAnswer(f"{question.line!r} was answered {str(got)[:600]}")
        if is_json and isinstance(got, Mapping) and got["id"] != self._requests:
            raise WrongAnswer(f"{question.line!r} is number {self._requests}, not {got['id']}")
        self._ledger.answers += 1
        self._ledger.met[answer.code or "ok"] += 1
        if question.mark:
            self._ledger.marks[question.mark] += 1

    async def expect_rest(self, *right: bytes) -> None:
        """Take all until the end.

        Raises:
            Refused, Unheard: there were too many clients.
            WrongAnswer: it is none of those that are right.
        """
        got = await self.rest()
        if got not in right and (got == REFUSED + b"\n" or not self._has_heard):
            raise self._cut(got)
        if got not in right:
            raise WrongAnswer(f"at the end came {got[-600:]!r}, not {right!r}"[:1500])
        self._ledger.answers += 1

    def _cut(self, heard: bytes) -> Exception:
        """Tell why the connection ended before it should."""
        if heard == REFUSED + b"\n":
            return Refused()
        if not self._has_heard:
            return Unheard()
        return WrongAnswer(f"the connection ended after {heard[-200:]!r}")
