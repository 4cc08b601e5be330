"""The server to compare with: an asyncio Protocol and stdlib logging, the most usual way to write one.

It answers ``ping``, ``exit`` and unknown words, and writes the same events as ours does: connected,
lost, and for each command received and completed.  Usage: ``asyncio_server.py PORT``.
"""

import asyncio
import itertools
import logging
import sys

log = logging.getLogger("cmd")
numbers = itertools.count()


class CmdProtocol(asyncio.Protocol):
    """One client's conversation."""

    def __init__(self) -> None:
        self.buffer = b""
        self.transport: asyncio.Transport
        self.client = ""
        self.system = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet nobody, but record it."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.client = transport.get_extra_info("peername")[0]
        self.system = f"CmdProtocol,{next(numbers)},{self.client}"
        log.info("Client connection from %s", self.client, extra={"system": self.system})

    def data_received(self, data: bytes) -> None:
        """Answer all complete lines in one write."""
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        answers = b"".join(map(self.answer, lines))
        if answers:
            self.transport.write(answers)

    def answer(self, line: bytes) -> bytes:
        """Answer one line."""
        command = line.rstrip(b"\r").decode("utf-8", "backslashreplace")
        log.info("Cmd received from %s : %s", self.client, command, extra={"system": self.system})
        if command == "exit":
            self.transport.close()
        answer = {"ping": b"pong\n", "exit": b""}.get(command, b"Command not found.\n")
        log.info("Cmd completed for %s : %s", self.client, command, extra={"system": self.system})
        return answer

    def connection_lost(self, exc: Exception | None) -> None:
        """Record the end."""
        log.info("Lost client connection. Reason: %s", exc, extra={"system": self.system})


async def main(port: int) -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(CmdProtocol, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s [%(system)s] %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    asyncio.run(main(int(sys.argv[1])))
