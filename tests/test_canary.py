"""A token in every place where somebody can put one, and every output of the server looked through for it.

A piece of eight characters is a hit: whatever is cut must have been hidden before.
"""

import hashlib
import json
import logging
import re
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from conftest import StartProgram
from conversation import conversing
from program import PATIENCE_SECONDS, Program, read_all, wait_until
from trio_cmd.commands import Asker, Command, Surroundings
from trio_cmd.records import LineSink, Render, make_logger
from trio_cmd.records.ecs import EcsRender
from trio_cmd.records.events import record_fault
from trio_cmd.records.render import render_json, render_twisted
from trio_cmd.records.stdlib import route_stdlib
from trio_cmd.wire.messages import Reply

WriteSettings = Callable[[str], str]

SECRET = b"Zq7-eKx1_Vn8RbTw3Yd5Gm0Hs6Jf2Lc9Po4UiQaXeBv"
TOKEN = b"tcmd_" + SECRET
WRONG = SECRET[::-1]
PIECES = [secret[start : start + 8] for secret in (SECRET, WRONG) for start in range(len(SECRET) - 7)]
WORDS = {b"TOKEN": TOKEN, b"SECRET": SECRET, b"WRONG": WRONG}
HIDDEN = b"tcmd_***"
LONG = 65536  # bytes of a program's output that are made safe to show at one turn


def hits(data: bytes) -> list[bytes]:
    """The pieces of the secret that are in it."""
    return [piece for piece in PIECES if piece in data]


# What a client sends, and a part of the answer that shows that it came there.
LINES = [
    (b"TOKEN", b"Command not found."),
    (b"x" * 50 + b"TOKEN TOKEN", b"Command not found."),
    (b"auth TOKEN", b"Welcome canary."),
    (b"auth tcmd_WRONG", b"wrong token"),
    (b"auth SECRET", b""),
    (b" \tauth\tTOKENx", b""),
    (b"AUTH SECRET", b""),
    (b"auth \x01SECRET", b"control characters"),
    (b"auth\0SECRET", b"control characters"),
    (b"ping TOKEN", b"pong"),
    (b"ping\0TOKEN", b"control characters"),
    (b"TOKEN\0ping", b"control characters"),
    (b"status TOKEN", b"uptime_seconds"),
    (b"help TOKEN", b"Command not found."),
    (b"format TOKEN", b"usage: format"),
    (b"comphash TOKEN", b"No such file or directory: 'tcmd_***'"),
    (b"comphash sha256 TOKEN/TOKEN", b"'tcmd_***/tcmd_***'"),
    (b"comphash FOLDER/TOKEN", b"da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    (b"comphash FOLDER/link", b"Not a directory"),
    (b"comphash FOLDER/tcmd_", b"No such file or directory"),
    (b"comphash /TOKEN", b"outside the roots: '/tcmd_***'"),
    (b"comphash FOLDER/" + b"TOKEN" * 6, b"File name too long"),
    (b"verify TOKEN FOLDER", b"usage: verify"),
    (b"verify TOKEN:00 FOLDER", b"no algorithm 'tcmd_***'"),
    (b"verify sha1:TOKEN FOLDER", b"expected hex digits"),
    (b"verify sha1:" + b"0" * 40 + b" FOLDER/TOKEN", b"da39a3ee"),
    (b"lastlog TOKEN", b"no log named 'tcmd_***'"),
    (b"lastlog 5 TOKEN", b"no log named 'tcmd_***'"),
    (b"lastlog 5TOKEN", b"expected a number"),
    (b"lastlog", b"said tcmd_*** twice: tcmd_***"),
    (b"follow TOKEN", b"no log named 'tcmd_***'"),
    (b"say TOKEN", b"out tcmd_***"),
    (b"say TOKEN", b"err tcmd_***"),
    (b"say TOKEN TOKEN", b"expected WORD"),
    (b"long TOKEN", b"00tcmd_***"),
    (b"\xff\xfaTOKEN\xff\xf0ping", b"pong"),
    (b"\xff\xfbping tcmd_\xff\xf1SECRET", b""),
    (b"nope tcmd_\xff\xf1SECRET", b"Command not found."),
    (b"\xff\xfaTOKEN", b""),
    (b"x" * 500 + b"TOKEN", b"line longer than 512 bytes"),
    (b"TOKEN" * 20, b"line longer than 512 bytes"),
    (b"exit TOKEN", b""),
]
# What is the first a client sends, and nothing more: it is closed, or cut by the deadline.
OPENINGS = [
    b"GET /TOKEN HTTP/1.1\r\n",
    b"SSH-TOKEN\r\n",
    b"\x16TOKEN\n",
    b"comphash /TOKEN",
    b"auth tcmd_Zq7-eKx1_V",
]


class Canary:
    """The program with tokens in its log, its files and its programs' output; its outputs are files."""

    def __init__(self, folder: Path, form: str, start: StartProgram, write_settings: WriteSettings) -> None:
        self.folder = folder / "files"
        self.folder.mkdir()
        (self.folder / TOKEN.decode()).touch()
        (self.folder / "link").symlink_to(TOKEN.decode() + "/missing")
        self.log = folder / "syslog"
        self.log.write_bytes(b"%b\n said %b twice: %b\n" % (b"x" * (LONG - 9) + TOKEN, TOKEN, TOKEN))
        self._outputs = (folder / "records", folder / "errors")
        settings = f"""
            [limits]
            line_bytes = 512
            request_seconds = 1
            [logs]
            syslog = {{ file = "{self.log}" }}
            [comphash]
            roots = ["{folder}"]
            [[grants]]
            name = "local"
            commands = ["*"]
            [[grants]]
            name = "canary"
            token_sha256 = "{hashlib.sha256(TOKEN).hexdigest()}"
            commands = ["ping"]
            [programs.say]
            argv = ["/bin/sh", "-c", "echo out $1; echo err $1 >&2; exit 3", "sh", "{{word}}"]
            arguments = {{ word = "[A-Za-z0-9_-]+" }}
            [programs.long]
            argv = ["/bin/sh", "-c", 'printf "%0{LONG - 9}d%s" 0 $1', "sh", "{{word}}"]
            arguments = {{ word = "[A-Za-z0-9_-]+" }}
        """
        with self._outputs[0].open("wb") as records, self._outputs[1].open("wb") as errors:
            self.program: Program = start(
                *("--config", write_settings(settings), "--log-format", form),
                cwd=folder,
                stdout=records,
                stderr=errors,
            )
        wait_until(lambda: b"Starting server" in self.recorded(), "the start of the server")
        found = re.search(rb"trio_cmd.Server starting on (\d+)", self.recorded())
        assert found is not None
        self._port = int(found[1])

    def recorded(self) -> bytes:
        """What was recorded, and said on standard error, so far."""
        return b"".join(path.read_bytes() for path in self._outputs)

    @contextmanager
    def connect(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE_SECONDS) as client:
            yield client

    def ask(self, line: bytes) -> bytes:
        """Ask for a line, as text and as JSON; returns all that is answered."""
        answers = []
        for before in (b"", b"format json\n"):
            with self.connect() as client:
                client.sendall(before + self.fill(line) + b"\n")
                client.shutdown(socket.SHUT_WR)
                answers.append(read_all(client))
        return b"".join(answers)

    def open_with(self, openings: Sequence[bytes]) -> bytes:
        """Send each on a connection of its own and nothing more; returns all that is said."""
        with ExitStack() as stack:
            clients = [stack.enter_context(self.connect()) for _ in openings]
            for client, opening in zip(clients, openings, strict=True):
                client.sendall(self.fill(opening))
            return b"".join(map(read_all, clients))

    def follow(self, before: bytes) -> bytes:
        """Follow the log while tokens are written to it, in one piece and in two."""
        heard = bytearray()
        with self.connect() as client:
            client.sendall(before + b"follow\n")
            deadline = time.monotonic() + PATIENCE_SECONDS
            while b"the end" not in heard:
                assert time.monotonic() < deadline, bytes(heard)
                self._append(b"now %b here\nnow %b" % (TOKEN, TOKEN[:20]))
                self._append(TOKEN[20:] + b" the end\n")
                if select.select([client], [], [], 0.05)[0]:
                    heard += client.recv(LONG)
            client.sendall(b"exit\n")
            return bytes(heard) + read_all(client)

    def fill(self, line: bytes) -> bytes:
        for word, meant in WORDS.items():
            line = line.replace(word, meant)
        return line.replace(b"FOLDER", str(self.folder).encode())

    def _append(self, data: bytes) -> None:
        with self.log.open("ab") as file:
            file.write(data)


@pytest.mark.parametrize("form", ["json", "twisted"])
def test_a_token_leaves_the_server_nowhere(
    form: str, tmp_path: Path, start: StartProgram, write_settings: WriteSettings
) -> None:
    """Answers may be pasted, records shipped and errors mailed: a token in a wrong place is not in them."""
    canary = Canary(tmp_path, form, start, write_settings)
    for line, expected in LINES:
        answer = canary.ask(line)
        assert expected in answer, (line, answer)
        assert not hits(answer), (line, answer)
    for before in (b"", b"format json\n"):
        followed = canary.follow(before)
        assert followed.count(HIDDEN) >= 2
        assert not hits(followed), followed
    opened = canary.open_with(OPENINGS)
    assert opened.count(b"Line not finished in 1 s. bye !\n") == 2
    assert not hits(opened)
    assert canary.program.stop() == 0
    recorded = canary.recorded()
    assert recorded.count(HIDDEN) >= len(LINES)
    assert not hits(recorded), [line for line in recorded.splitlines() if hits(line)]


# What no client can bring about: faults


def _crash(argument: bytes, surroundings: Surroundings) -> Reply:
    raise RuntimeError(argument.decode(), argument, {"argument": argument})


async def _crash_slowly(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
    await trio.lowlevel.checkpoint()
    try:
        return _crash(argument, surroundings)
    except RuntimeError as error:
        raise KeyError(argument * 200) from error


@pytest.mark.parametrize(
    "command", [Command("x", "", "", answer=_crash), Command("x", "", "", work=_crash_slowly)]
)
@pytest.mark.parametrize("before", [b"", b"format json\n"])
async def test_a_token_is_in_no_traceback(autojump_clock: MockClock, command: Command, before: bytes) -> None:
    """A fault of ours quotes what it fell over; the record of it may be sent to us."""
    async with conversing(more_commands={b"x": command}) as talk:
        answer = await talk.say(before + b"x " + TOKEN + b"\n")
        assert b"internal error" in answer
        assert not hits(answer)
    recorded = json.dumps(talk.sink.records).encode()
    assert b"RuntimeError" in recorded or b"KeyError" in recorded
    assert HIDDEN in recorded
    assert not hits(recorded)


@pytest.mark.parametrize("render", [render_json, render_twisted, EcsRender()])
@pytest.mark.parametrize("size", [0, 1000, 4000, 4040, 4090])
def test_no_cut_of_a_record_leaves_a_piece_of_a_token(render: Render, size: int) -> None:
    """A record has its length; what is in it was hidden before it was cut."""
    lines: list[bytes] = []

    class Sink(LineSink):
        def put(self, line: bytes, action: str) -> None:
            lines.append(line)

    log = make_logger(Sink(), render)
    fault = RuntimeError(b"y" * size + TOKEN + b" " + TOKEN * 100)
    record_fault(log, fault)
    with route_stdlib(log):
        logging.getLogger(TOKEN.decode()).error("%s", "y" * size + TOKEN.decode(), exc_info=fault)
    assert len(lines) == 2
    assert all(HIDDEN in line or size > 1000 for line in lines)
    assert not hits(b"".join(lines))
