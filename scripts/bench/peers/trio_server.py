"""The tutorial's server in Trio, plain and idiomatic: a task for each client, one answer after another.

    python trio_server.py PORT LOG RECORD

``lastlog`` is ``run_process``, ``comphash`` a function given to ``to_thread``, and structlog prints
each event as a line of JSON to the file RECORD.
"""

import hashlib
import itertools
import sys
from functools import partial

import structlog
import trio

CHUNK_BYTES = 1 << 16
RECEIVE_BYTES = 1 << 16

numbers = itertools.count()
log = structlog.get_logger()


async def serve_client(stream: trio.SocketStream, syslog: str) -> None:
    """Have one client's conversation."""
    client = stream.socket.getpeername()[0]
    bound = log.bind(system=f"CmdProtocol,{next(numbers)},{client}")
    bound.info(f"Client connection from {client}")
    reason = "Connection was closed cleanly."
    try:
        await converse(stream, client, bound, syslog)
    except trio.BrokenResourceError as error:
        reason = str(error)
    bound.info(f"Lost client connection. Reason: {reason}")


async def converse(
    stream: trio.SocketStream, client: str, bound: structlog.typing.FilteringBoundLogger, syslog: str
) -> None:
    """Answer line by line until the client leaves."""
    buffer = b""
    async with stream:
        async for data in stream:
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                text = line.rstrip(b"\r").decode("utf-8", "surrogateescape")
                bound.info(f"Cmd received from {client} : {text}")
                await stream.send_all(await answer(text, syslog))
                bound.info(f"Cmd completed for {client} : {text}")
                if text == "exit":
                    return


async def answer(text: str, syslog: str) -> bytes:
    """Answer one line."""
    command, _, argument = text.partition(" ")
    if command == "lastlog":
        return await lastlog(syslog)
    if command == "comphash" and argument:
        return await comphash(argument)
    return {"ping": b"pong\n", "exit": b""}.get(command, b"Command not found.\n")


async def lastlog(path: str) -> bytes:
    """Let ``tail`` tell the newest lines."""
    done = await trio.run_process(["/usr/bin/tail", "-n", "10", path], capture_stdout=True)
    return b"Begin lastlog\n" + done.stdout + b"End lastlog\n"


async def comphash(path: str) -> bytes:
    """Let a thread hash a file."""
    try:
        digest = await trio.to_thread.run_sync(digest_file, path)
    except OSError as error:
        return f"An error occured : {error}\n".encode()
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
    handler = partial(serve_client, syslog=syslog)
    await trio.serve_tcp(handler, port, host="127.0.0.1", backlog=1024)


if __name__ == "__main__":
    port, syslog, record = sys.argv[1:]
    with open(record, "a", encoding="utf-8", buffering=1) as file:
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso"),
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger("INFO"),
            logger_factory=structlog.PrintLoggerFactory(file),
            cache_logger_on_first_use=True,
        )
        trio.run(main, int(port), syslog)
