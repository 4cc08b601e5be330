"""One host, asked by the public client: real servers, and hosts that are none."""

import contextlib
import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import trio_cmd.client
from bad_hosts import BadHost, stay_silent
from conftest import StartProgram
from program import PATIENCE_SECONDS, Program, Record, free_port, wait_until
from sayings import answer, greet, saying, spell
from trio_cmd.client import (
    AnswerTooLong,
    AskError,
    CommandError,
    Connection,
    ConnectionLost,
    NoAnswer,
    OtherProtocol,
    Progress,
    Refused,
    Reply,
    Skipped,
    connect,
)
from trio_cmd.tokens import digest_token, make_token

FULL = os.environ.get("TRIO_CMD_FULL") == "1"
BENCH = Path(__file__).parent.parent / "scripts" / "bench" / "ask.py"
TOKEN = make_token()
LINES = [f"Nov 20 15:02:00 lab kernel: {n:06} {'=' * 60}" for n in range(2000)]
SHORT_SECONDS = 0.1
LATER = {"code": "busy", "message": "try again later"}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "syslog"
    path.write_text("\n".join([*LINES, ""]))
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[Program]:
    """A server with a slow program, and a command for which a token is needed."""
    path = tmp_path_factory.mktemp("settings") / "trio-cmd.toml"
    path.write_text(f"""
[logs]
syslog = {{ file = "{log}" }}
[programs.wait]
argv = ["/bin/sleep", "{{seconds}}"]
arguments.seconds = "[0-9]{{1,3}}"
[programs.secret]
argv = ["/bin/echo", "secret"]
[[grants]]
name = "here"
addresses = ["127.0.0.0/8"]
commands = ["ping", "comphash", "lastlog", "follow", "wait"]
[[grants]]
name = "teller"
token_sha256 = "{digest_token(TOKEN.encode())}"
commands = ["secret"]
""")
    path.chmod(0o600)
    with Program("--config", str(path)) as program:
        yield program


def patiently(host: Program | str, **options: Any) -> contextlib.AbstractAsyncContextManager[Connection]:
    """Connect with all the time a busy machine takes."""
    address = host if isinstance(host, str) else f"127.0.0.1:{host.port}"
    return connect(
        address, **{"connect_seconds": PATIENCE_SECONDS, "answer_seconds": PATIENCE_SECONDS, **options}
    )


async def ask_once(host: Program | str, question: str = "ping", **options: Any) -> Reply:
    """Ask one question on a connection of its own."""
    async with patiently(host, **options) as server:
        return await server.ask(question)


async def end_of(program: Program, command: str, argument: str) -> Record:
    """Wait for the end of the connection on which something was asked that was asked only once."""
    asked = {"action": "command-received", "command": command, "arguments": argument}

    def wait() -> Record:
        record = program.wait_until(lambda record: asked.items() <= record.items(), str(asked))
        return program.wait_for("client-lost", connection=record["connection"])

    return await trio.to_thread.run_sync(wait)


# Asking


async def test_a_host_is_asked_and_answers_in_values(program: Program) -> None:
    """No program has to read text that was made for people."""
    async with patiently(program) as server:
        assert (await server.ask("ping")).result == {"pong": True}
        reply = await server.ask(b"comphash sha256 " + sys.executable.encode())
        digest = hashlib.sha256(Path(sys.executable).read_bytes()).hexdigest()
        assert (reply.command, reply.result["digest"]) == ("comphash", digest)
        assert reply.seconds > 0
        assert (await server.ask("lastlog 2000")).result["lines"] == LINES


async def test_an_error_of_a_command_leaves_the_connection_good(program: Program) -> None:
    """One missing file is an answer as good as any."""
    async with patiently(program) as server:
        with pytest.raises(CommandError) as failed:
            await server.ask("comphash /nope")
        assert failed.value.code == "not-found"
        assert failed.value.message == "[Errno 2] No such file or directory: '/nope'"
        assert (await server.ask("ping")).result["pong"]


async def test_many_tasks_ask_at_once_and_each_gets_its_own(program: Program, tmp_path: Path) -> None:
    """A manifest of files is checked on one connection, without waiting for each answer."""
    replies: dict[str, Reply | AskError] = {}

    async def ask(path: str) -> None:
        try:
            replies[path] = await server.ask(f"comphash {path}")
        except CommandError as error:
            replies[path] = error

    paths = [f"{tmp_path}/{n}" for n in range(100)]
    for n, path in enumerate(paths[:90]):
        Path(path).write_text(str(n))
    async with patiently(program) as server, trio.open_nursery() as nursery:
        for path in paths:
            nursery.start_soon(ask, path)
    for n, path in enumerate(paths[:90]):
        reply = replies[path]
        assert isinstance(reply, Reply)
        assert reply.result["digest"] == hashlib.sha1(str(n).encode()).hexdigest()
    assert all(path in str(replies[path]) for path in paths[90:])


async def test_a_cancelled_question_takes_nothing_from_the_others(program: Program, tmp_path: Path) -> None:
    """Its answer is thrown away when it comes; the next one is not taken for it."""
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        path.write_text(path.name)
    async with patiently(program) as server:
        with trio.move_on_after(0) as scope:
            await server.ask(f"comphash {first}")
        assert scope.cancelled_caught
        reply = await server.ask(f"comphash {second}")
        assert reply.result["path"] == str(second)


@pytest.mark.parametrize("line", ["format text", "exit", "quit now", "follow syslog", "", "ping\nping"])
async def test_what_would_end_the_form_of_the_connection_is_not_asked(program: Program, line: str) -> None:
    """Each has its own way here, or none; the connection stays good."""
    async with patiently(program) as server:
        with pytest.raises(ValueError, match=r"is not asked|a question"):
            await server.ask(line)
        assert (await server.ask("ping")).result["pong"]


async def test_progress_is_told_in_the_task_that_asks(program: Program, tmp_path: Path) -> None:
    """A large file shows that it is being read; whoever leaves does not let the host read on."""
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 36)
    told = trio.Event()
    news: list[Progress] = []

    def tell(progress: Progress) -> None:
        news.append(progress)
        told.set()
        scope.cancel()

    async with patiently(program) as server:
        with trio.CancelScope() as scope:
            await server.ask(f"comphash {large}", on_progress=tell)
    assert told.is_set()
    assert 0 < news[0].done < news[0].total == 1 << 36
    assert (await end_of(program, "comphash", str(large)))["reason"] == "reset"
    program.wait_for("command-completed", command="comphash", arguments=str(large), outcome="gone")


async def test_news_that_come_too_fast_are_told_by_the_latest() -> None:
    """A host cannot keep a program busy with news; and the error of who is told is the asker's own."""

    def script(client: socket.socket) -> None:
        greet(client)
        client.recv(1 << 16)
        events = [spell(id=2, event="progress", done=n, total=9) for n in range(9)]
        client.sendall(b"".join(events) + spell(id=2, event="news") + answer(2))
        client.recv(1 << 16)
        client.sendall(spell(id=3, event="progress", done=1, total=9))
        client.recv(1 << 16)
        client.sendall(b"".join(events).replace(b'"id": 2', b'"id": 3') + answer(3) + answer(4, is_last=True))
        stay_silent(client)

    news: list[Progress] = []
    with BadHost(script) as host:
        async with patiently(host.name) as server:
            await server.ask("first", on_progress=news.append)
            assert news == [Progress(8, 9)]
            with pytest.raises(KeyError):
                await server.ask("second", on_progress=be_wrong)
            assert (await server.ask("third")).result == {"is_last": True}


def be_wrong(progress: Progress) -> None:
    raise KeyError(progress)


# The block


async def test_an_error_of_the_block_leaves_it_as_it_is(program: Program) -> None:
    """Whoever writes ``except KeyError`` around a block gets it, and no group."""
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with patiently(program):
            raise error
    assert caught.value is error


async def test_an_error_of_the_block_is_not_lost_to_a_cancellation(program: Program) -> None:
    """What went wrong while a program was ended is what it is remembered for."""

    async def fail() -> None:
        async with patiently(program) as server:
            await server.ask("ping")
            scope.cancel()
            raise KeyError

    is_known = False
    with trio.CancelScope() as scope:
        with pytest.raises(KeyError):
            await fail()
        is_known = True
    assert is_known


async def test_a_cancelled_block_ends_by_it(program: Program) -> None:
    """Ctrl-C and deadlines of the program around it work as ever."""
    with trio.move_on_after(SHORT_SECONDS) as scope:
        async with patiently(program):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_cancelled_entering_leaves_nothing(program: Program) -> None:
    """Whoever gives up on a silent host can go on."""
    with BadHost(stay_silent) as host, trio.move_on_after(SHORT_SECONDS) as scope:
        async with patiently(host.name):
            pytest.fail("it has not said a word")
    assert scope.cancelled_caught


@pytest.mark.parametrize("error", [None, KeyError])
async def test_a_connection_with_nothing_under_way_ends_in_order(
    program: Program, error: type[Exception] | None
) -> None:
    """The record of the host tells clients that ended from those that died."""
    with contextlib.suppress(KeyError):
        async with patiently(program) as server:
            await server.ask(f"ping {error}")
            if error is not None:
                raise error
    assert (await end_of(program, "ping", str(error)))["reason"] == "closed"


async def test_leaving_with_a_question_under_way_ends_the_hosts_work(program: Program) -> None:
    """Nobody waits for the answer, so nothing should run for it."""
    async with patiently(program) as server:
        with trio.move_on_after(SHORT_SECONDS):
            await server.ask("wait 301")
    assert (await end_of(program, "wait", "301"))["reason"] == "reset"
    program.wait_for("command-completed", command="wait", arguments="301", outcome="gone")


# Tokens


async def test_a_token_opens_what_it_is_for(program: Program) -> None:
    """And nothing before it is shown."""
    with pytest.raises(CommandError, match="not allowed"):
        await ask_once(program, "secret")
    assert (await ask_once(program, "secret", token=TOKEN)).result["lines"] == ["secret"]
    assert (await ask_once(program, "ping", token=TOKEN)).result["pong"]


async def test_a_wrong_token_is_said_at_the_beginning_and_not_shown(program: Program) -> None:
    """It may be right elsewhere, and tracebacks are mailed around."""
    token = make_token()
    with pytest.raises(CommandError) as failed:
        await ask_once(program, token=token)
    assert failed.value.code == "bad-token"
    assert token[5:] not in "".join(traceback.format_exception(failed.value)) + repr(failed.value)


@pytest.mark.parametrize(
    "token",
    ["", "tcmd_short", "tcmd_" + "\u00e4" * 43, TOKEN + "\nping", "\udc80"],
    ids=["empty", "short", "not ASCII", "two lines", "no text"],
)
async def test_what_is_no_token_is_not_sent(token: str) -> None:
    """A line feed in it would be a command of whoever made it."""
    with pytest.raises(ValueError, match="a token is") as error:
        connect("127.0.0.1", token=token)
    assert not token or token not in str(error.value)


async def test_a_token_is_shown_to_servers_of_this_kind_only() -> None:
    """Others would write it into their logs."""
    heard = bytearray()

    def script(client: socket.socket) -> None:
        while data := client.recv(1 << 16):
            heard.extend(data)
            client.sendall(b"Command not found.\n")

    with BadHost(script) as host, pytest.raises(OtherProtocol, match="old server"):
        await ask_once(host.name, token=TOKEN)
    assert bytes(heard) == b"format json\r\n"


async def test_a_host_that_sends_the_token_back_does_not_show_it() -> None:
    """Not even a hostile host gets a token into what is shown."""

    def script(client: socket.socket) -> None:
        greet(client)
        client.sendall(client.recv(1 << 16))
        stay_silent(client)

    with BadHost(script) as host, pytest.raises(OtherProtocol) as failed:
        await ask_once(host.name, token=TOKEN)
    assert TOKEN[5:] not in "".join(traceback.format_exception(failed.value))


# Being refused


async def test_one_client_too_many_reads_why(start: StartProgram) -> None:
    """The host's own sentence is what the operator looks up."""
    program = start("--max-clients", "1")
    async with patiently(program) as server:
        with pytest.raises(Refused) as refused:
            await ask_once(program)
        assert refused.value.message == "Too many connections. bye !"
        assert (await server.ask("ping")).result["pong"]


async def test_all_who_wait_read_why_a_server_ends(program: Program) -> None:
    """Twenty wrong questions end a connection; those behind them have the reason, each its own."""
    errors: list[AskError] = []

    async def ask() -> None:
        try:
            await server.ask("nope")
        except AskError as error:
            errors.append(error)

    async with patiently(program) as server:
        async with trio.open_nursery() as nursery:
            for _ in range(25):
                nursery.start_soon(ask)
        with pytest.raises(Refused, match=r"Too many errors\. bye !"):
            await server.ask("ping")
    refused = [error for error in errors if isinstance(error, Refused)]
    assert {error.message for error in refused} == {"Too many errors. bye !"}
    assert len({id(error) for error in refused}) == len(refused) == 5


async def test_a_server_that_stops_says_so(start: StartProgram) -> None:
    """Also to whoever was just not asking."""
    program = start()
    async with patiently(program) as server:
        assert await trio.to_thread.run_sync(program.stop) == 0
        with pytest.raises(Refused, match=r"Server is stopping\. bye !"):
            await ask_until_it_fails(server)


async def ask_until_it_fails(server: Connection) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while True:
            await server.ask("ping")


# Bad hosts


async def test_a_web_server_is_told_from_one_of_ours(tmp_path: Path) -> None:
    """A wrong port is found by what listens there."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(tmp_path),
        str(port),
    ]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as web:
        try:
            await trio.to_thread.run_sync(wait_for_port, port)
            with pytest.raises(OtherProtocol, match="it is no server of this kind, it says '<"):
                await ask_once(f"127.0.0.1:{port}")
        finally:
            web.kill()


def wait_for_port(port: int) -> None:
    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    wait_until(listens, "somebody listens")


@pytest.mark.needs("socat")
async def test_a_shell_server_is_told_from_one_of_ours() -> None:
    """Its banner names it."""
    port = free_port()
    command = [
        "socat",
        f"TCP-LISTEN:{port},bind=127.0.0.1,fork",
        "SYSTEM:echo SSH-2.0-OpenSSH_9.2; cat >/dev/null",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as banner:
        try:
            await trio.to_thread.run_sync(wait_for_port, port)
            with pytest.raises(OtherProtocol, match=r"it says 'SSH-2\.0-OpenSSH_9\.2'"):
                await ask_once(f"127.0.0.1:{port}")
        finally:
            banner.kill()


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        pytest.param(b"", ConnectionLost, id="nothing"),
        pytest.param(b"Not allowed from 10.0.0.1. bye !\n", Refused, id="notice"),
        pytest.param(b"Server is stopping. bye !", Refused, id="notice cut"),
        pytest.param(b"login: ", OtherProtocol, id="prompt"),
        pytest.param(b"\0" * 100_000, OtherProtocol, id="endless"),
        pytest.param(b"\n", OtherProtocol, id="empty line"),
        pytest.param(answer(2), OtherProtocol, id="wrong number"),
        pytest.param(spell(id=1, event="line", line="a"), OtherProtocol, id="event"),
        pytest.param(answer(1)[:-9], ConnectionLost, id="cut"),
        pytest.param(
            spell(id=1, ok=False, error={"code": "busy", "message": "later"}), CommandError, id="error"
        ),
    ],
)
async def test_whatever_a_host_says_first_is_one_of_the_reasons(said: bytes, kind: type[AskError]) -> None:
    """Among a thousand hosts there is always one that is something else."""
    with BadHost(saying(said)) as host, pytest.raises(kind):
        await ask_once(host.name)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        pytest.param(answer(3), OtherProtocol, id="wrong number"),
        pytest.param(answer(2) + answer(3), OtherProtocol, id="not asked"),
        pytest.param(b"{" * 100 + b"\n", OtherProtocol, id="nonsense"),
        pytest.param(answer(2)[:-9], ConnectionLost, id="cut"),
        pytest.param(b"x" * 2000, AnswerTooLong, id="too long"),
        pytest.param(b'{"event":"bye","reason":"idle","message":"Idle for 1 s. bye !"}\n', Refused, id="bye"),
    ],
)
async def test_whatever_a_host_says_later_is_one_of_the_reasons(said: bytes, kind: type[AskError]) -> None:
    """What was asked, and what will be, ends with a reason."""

    def script(client: socket.socket) -> None:
        greet(client)
        saying(said)(client)

    with BadHost(script) as host:
        async with patiently(host.name, max_answer_bytes=1000) as server:
            with pytest.raises(kind):
                await ask_until_it_fails(server)
            with pytest.raises(ConnectionLost if kind is AnswerTooLong else kind):
                await server.ask("ping")


async def test_a_prompt_that_waits_for_more_is_told_from_silence() -> None:
    """Both end by their time, but only one of them is a server of ours perhaps."""

    def script(client: socket.socket) -> None:
        client.sendall(b"login: ")
        stay_silent(client)

    with BadHost(script) as host, pytest.raises(OtherProtocol, match="it says 'login: '"):
        await ask_once(host.name, connect_seconds=SHORT_SECONDS)
    with BadHost(stay_silent) as host, pytest.raises(NoAnswer, match=r"no answer in 0\.1 s"):
        await ask_once(host.name, connect_seconds=SHORT_SECONDS)


async def test_an_answer_that_does_not_come_is_given_up_in_time(program: Program) -> None:
    """Others that were asked behind it as well: they could only come later."""
    async with patiently(program, answer_seconds=SHORT_SECONDS) as server:
        with pytest.raises(NoAnswer):
            await server.ask("wait 302")
        with pytest.raises(NoAnswer):
            await server.ask("ping")
        gone = partial(program.wait_for, "command-completed", command="wait", arguments="302", outcome="gone")
        await trio.to_thread.run_sync(gone)  # also while the block goes on


async def test_a_flood_of_news_neither_prolongs_an_answer_nor_holds_up_other_hosts(program: Program) -> None:
    """One host gone mad among a thousand is one line of output."""
    event = spell(id=2, event="progress", done=1, total=9) * 1000

    def flood(client: socket.socket) -> None:
        greet(client)
        client.recv(1 << 16)
        while True:
            client.sendall(event)

    with BadHost(flood) as host:
        async with (
            patiently(host.name, answer_seconds=3 * SHORT_SECONDS) as mad,
            patiently(program) as server,
        ):
            began = time.monotonic()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect_no_answer, mad)
                for _ in range(10):
                    assert (await server.ask("ping")).result["pong"]
    assert time.monotonic() - began < PATIENCE_SECONDS / 3


async def expect_no_answer(server: Connection) -> None:
    with pytest.raises(NoAnswer):
        await server.ask("comphash /x", on_progress=lambda progress: None)


@pytest.mark.parametrize("ending", [b"", b"\n"])
async def test_a_hundred_megabytes_are_given_up_at_the_bound(ending: bytes) -> None:
    """Neither with line feeds nor without can a host take the memory of who asks."""
    piece = b"x" * 99_999 + (ending or b"x")

    def script(client: socket.socket) -> None:
        greet(client)
        client.recv(1 << 16)
        for _ in range(1000):
            client.sendall(piece)
        stay_silent(client)

    errors: list[AskError] = []

    async def ask() -> None:
        try:
            await server.ask("lastlog")
        except AskError as error:
            errors.append(error)

    tracemalloc.start()
    with BadHost(script) as host:
        async with patiently(host.name) as server, trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    kinds = {OtherProtocol} if ending else {AnswerTooLong, ConnectionLost}
    assert {type(error) for error in errors} == kinds
    assert most_bytes < 32 << 20


@pytest.mark.parametrize("piece", [b"\xff\xfa" + b"x" * (1 << 20), b"\xff\xfb" * (1 << 19)])
async def test_a_line_of_telnet_takes_no_more_memory_than_another(piece: bytes) -> None:
    """To look for telnet's commands in a line of 8 MiB takes a GiB, and servers send none."""

    def script(client: socket.socket) -> None:
        greet(client)
        client.recv(1 << 16)
        client.sendall(piece + b"\n")
        stay_silent(client)

    tracemalloc.start()
    with BadHost(script) as host:
        async with patiently(host.name) as server:
            with pytest.raises(OtherProtocol):
                await server.ask("lastlog")
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 16 << 20


async def test_a_reason_has_a_bound() -> None:
    """What a host says of itself is one line, and no flood."""
    flood = answer(1) + spell(event="bye", reason="x", message="y" * 5_000_000)
    with BadHost(saying(flood)) as host, pytest.raises(AskError) as caught:
        async with patiently(host.name) as server:
            await server.ask("ping")
    assert type(caught.value) is Refused
    assert len(str(caught.value)) < 40_000


async def test_a_host_that_takes_no_questions_is_given_up_in_time() -> None:
    """Neither is a full buffer waited for."""

    def script(client: socket.socket) -> None:
        greet(client)
        gone.wait()

    gone = threading.Event()
    with BadHost(script) as host:
        try:
            async with patiently(host.name, answer_seconds=SHORT_SECONDS) as server:
                with pytest.raises(NoAnswer):
                    await server.ask(b"x" * (32 << 20))
        finally:
            gone.set()


# Following


async def test_a_log_is_followed_line_by_line(program: Program, log: Path) -> None:
    """On a connection of its own: others are asked meanwhile; leaving the block ends it in order."""
    async with patiently(program) as server, server.follow("syslog") as lines:
        with trio.fail_after(PATIENCE_SECONDS):
            await trio.to_thread.run_sync(wait_for_followers, program)
            with log.open("a") as file:
                file.write("one\x1b\ntwo\n")
            assert await anext(lines) == "one\\x1b"
            assert (await server.ask("ping")).result["pong"]
            assert await anext(lines) == "two"
    assert (await end_of(program, "follow", "syslog"))["reason"] == "exit"


def wait_for_followers(program: Program) -> None:
    """Wait until the child that follows is there, and reads."""
    wait_until(lambda: any(is_asleep(child) for child in program.children()), "somebody follows")


def is_asleep(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "S"
    return False


async def test_following_what_there_is_not_fails_by_its_reason(program: Program) -> None:
    """The host names the logs there are."""
    async with patiently(program) as server:
        async with server.follow("nope") as lines:
            with pytest.raises(CommandError, match="the logs are: syslog") as failed:
                await anext(lines)
        assert failed.value.code == "not-found"
        with pytest.raises(ValueError, match="a question"):
            await server.follow("a\nb").__aenter__()


async def test_a_cancelled_following_ends_the_hosts_work(program: Program) -> None:
    """A quiet log would never tell the host that nobody reads it any more."""
    async with patiently(program, token=TOKEN) as server:
        with trio.move_on_after(SHORT_SECONDS) as scope:
            async with server.follow() as lines:
                await anext(lines)
        assert scope.cancelled_caught
    assert (await end_of(program, "follow", ""))["reason"] == "reset"


async def test_what_was_left_out_is_told_in_its_place_and_the_end_by_its_reason() -> None:
    """Whoever reads too slowly knows how much is missing."""

    def script(client: socket.socket) -> None:
        greet(client)
        client.recv(1 << 16)
        said = spell(id=2, event="line", line="a") + spell(id=2, event="skipped", lines=12)
        said += spell(id=2, event="later") + answer(2, lines=1, skipped=12)
        client.sendall(said + b'{"event":"bye","reason":"stopping","message":"Server is stopping. bye !"}\n')
        stay_silent(client)

    with BadHost(script) as host:
        async with patiently(host.name) as server, server.follow() as lines:
            heard: list[str | Skipped] = []
            with pytest.raises(Refused, match="stopping"):
                await hear_all(lines, heard)
    assert heard == ["a", Skipped(12)]


async def hear_all(lines: AsyncIterator[str | Skipped], heard: list[str | Skipped]) -> None:
    async for line in lines:
        heard.append(line)  # noqa: PERF401 - what came before an error counts


async def test_a_line_of_something_else_does_not_belong_to_the_log() -> None:
    """What was not asked is not taken for what was."""

    def script(client: socket.socket) -> None:
        greet(client)
        client.recv(1 << 16)
        client.sendall(spell(id=7, event="line", line="a"))
        stay_silent(client)

    with BadHost(script) as host:
        async with patiently(host.name) as server, server.follow() as lines:
            with pytest.raises(OtherProtocol):
                await anext(lines)


# The whole


async def test_a_connection_that_has_been_left_answers_nobody(program: Program) -> None:
    """A task that outlives the block hears so, and does not wait for ever."""
    reasons: list[str] = []

    async def ask(server: Connection, line: str) -> None:
        with pytest.raises(ConnectionLost) as caught:
            await server.ask(line)
        reasons.append(caught.value.message)

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            async with connect(f"127.0.0.1:{program.port}") as server:
                nursery.start_soon(ask, server, "wait 100")
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, server, "ping")
    assert reasons == ["the block of the connection has been left"] * 2


def test_what_others_may_import_is_there() -> None:
    """The manual names them."""
    assert all(hasattr(trio_cmd.client, name) for name in trio_cmd.client.__all__)


@pytest.mark.proof
def test_many_kept_connections_cost_little() -> None:
    """A thousand hosts can be watched from a small machine; ten times what an answer costs is allowed."""
    size = [] if FULL else ["--hosts", "200", "--servers", "2"]
    done = subprocess.run(
        [sys.executable, str(BENCH), *size], capture_output=True, text=True, timeout=PATIENCE_SECONDS * 4
    )
    cost = re.search(r"client CPU ([0-9.]+) ms an answer.*\nmemory ([0-9]+) MiB", done.stdout)
    assert cost is not None, done.stderr
    assert float(cost[1]) < 10 * 0.4
    assert int(cost[2]) < 100


async def test_all_answers_together_have_a_bound(program: Program) -> None:
    """Of many questions a hostile host makes no heap."""
    async with patiently(program, max_total_bytes=200) as server:
        await server.ask("ping")
        with pytest.raises(AnswerTooLong, match="its answers together are longer than is kept of one host"):
            await server.ask("ping")
