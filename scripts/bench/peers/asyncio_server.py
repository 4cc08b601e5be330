"""The tutorial's server as an asyncio Protocol with stdlib logging, the most usual way to write one.

    python asyncio_server.py PORT LOG RECORD [asyncio | uvloop]

``lastlog`` is a child of ``create_subprocess_exec``, ``comphash`` a function in the loop's executor,
each in a task of its own.  Events go to the file RECORD.
"""

import asyncio
import hashlib
import itertools
import logging
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Coroutine

CHUNK_BYTES = 1 << 16
COMMANDS = {"ping": b"pong\n", "exit": b""}

log = logging.getLogger("cmd")
numbers = itertools.count()


class CmdProtocol(asyncio.Protocol):
    """One client's conversation.

    Args:
        syslog: the path of what ``lastlog`` shows.
    """

    def __init__(self, syslog: str) -> None:
        self.syslog = syslog
        self.buffer = b""
        self.is_over = False
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet nobody, but record it."""
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # TCP has this kind
        self.client = transport.get_extra_info("peername")[0]
        self.extra = {"system": f"CmdProtocol,{next(numbers)},{self.client}"}
        log.info("Client connection from %s", self.client, extra=self.extra)

    def data_received(self, data: bytes) -> None:
        """Answer what is complete; quick answers in one write."""
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        if answers := b"".join(map(self.answer, lines)):
            self.transport.write(answers)
        if self.is_over:
            self.transport.close()

    def answer(self, line: bytes) -> bytes:
        """Answer one line at once, or start a task that will."""
        text = line.rstrip(b"\r").decode("utf-8", "surrogateescape")
        log.info("Cmd received from %s : %s", self.client, text, extra=self.extra)
        command, _, argument = text.partition(" ")
        if command == "lastlog":
            self.start(text, lastlog(self.syslog))
            return b""
        if command == "comphash" and argument:
            self.start(text, comphash(argument))
            return b""
        self.complete(text)
        self.is_over |= command == "exit"
        return COMMANDS.get(command, b"Command not found.\n")

    def start(self, text: str, work: Coroutine[None, None, bytes]) -> None:
        """Answer later."""
        task = asyncio.create_task(self.work(text, work))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def work(self, text: str, work: Coroutine[None, None, bytes]) -> None:
        """Wait for an answer and send it."""
        try:
            answer = await work
        except OSError as error:
            answer = f"An error occured : {error}\n".encode()
        self.transport.write(answer)
        self.complete(text)

    def complete(self, text: str) -> None:
        """Record the end of a command."""
        log.info("Cmd completed for %s : %s", self.client, text, extra=self.extra)

    def connection_lost(self, exc: Exception | None) -> None:
        """Record the end."""
        for task in self.tasks:
            task.cancel()
        log.info("Lost client connection. Reason: %s", exc, extra=self.extra)


async def lastlog(path: str) -> bytes:
    """Let ``tail`` tell the newest lines."""
    command = ("/usr/bin/tail", "-n", "10", path)
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE)
    output, _ = await process.communicate()
    return b"Begin lastlog\n" + output + b"End lastlog\n"


async def comphash(path: str) -> bytes:
    """Let a thread hash a file."""
    digest = await asyncio.get_running_loop().run_in_executor(None, digest_file, path)
    return f"File hash is : {digest}\n".encode()


def digest_file(path: str) -> str:
    """Hash a file in chunks."""
    digest = hashlib.sha1()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


async def main(port: int, syslog: str) -> None:
    """Serve for ever."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: CmdProtocol(syslog), "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    port, syslog, record, *kind = sys.argv[1:]
    form = "%(asctime)s [%(system)s] %(message)s"
    logging.basicConfig(filename=record, level=logging.INFO, format=form)
    if kind == ["uvloop"]:
        import uvloop

        uvloop.run(main(int(port), syslog))
    else:
        asyncio.run(main(int(port), syslog))
