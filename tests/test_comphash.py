import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from conversation import ask_alone
from program import PATIENCE_SECONDS
from trio_cmd.commands import COMMANDS, Surroundings
from trio_cmd.errors import CommandFailed, NotARegularFile, NotFound, PathMissing, TooLarge
from trio_cmd.settings import ALGORITHMS, Comphash, Settings
from trio_cmd.wire.messages import Reply, format_reply
from trio_cmd.work.followers import Followers
from trio_cmd.work.hashing import Hashing
from trio_cmd.work.limiter import FairLimiter, WaitingRoom
from trio_cmd.work.logs import LogReader
from trio_cmd.work.processes import GroupReaper
from trio_cmd.work.sharing import Sharing

SHA1 = hashlib.sha1(b"lab\n").hexdigest()


@contextmanager
def no_limit(command: str, seconds: float) -> Iterator[None]:
    """Keep no deadline."""
    yield


async def ask(line: bytes, settings: Comphash | None = None) -> Reply:
    """Ask as a client does, from the line on."""
    settings = settings or Comphash(threads=1)
    room = WaitingRoom(256)
    surroundings = Surroundings(
        Settings(comphash=settings),
        Hashing(settings, room, no_limit),
        reader := LogReader(FairLimiter(1, room), GroupReaper(), no_limit),
        dict,
        COMMANDS,
        followers=Followers(1, reader, GroupReaper(), no_limit),
        sharing=Sharing(print),
    )
    with trio.fail_after(PATIENCE_SECONDS):
        return await ask_alone(line, surroundings)


async def fault(line: bytes, settings: Comphash | None = None) -> CommandFailed:
    """Ask for what cannot be answered; returns why."""
    with pytest.raises(CommandFailed) as caught:
        await ask(line, settings)
    return caught.value


def text_of(reply: Reply) -> str:
    return format_reply(reply, "text", 1, b"comphash", 0.0).decode()


def make_file(folder: Path, name: bytes) -> bytes:
    """Write a file of four bytes; returns its path."""
    path = os.path.join(os.fsencode(folder), name)
    with open(path, "wb") as file:
        file.write(b"lab\n")
    return path


async def test_digest_is_told_in_the_words_of_the_tutorial(tmp_path: Path) -> None:
    """Scripts that read the tutorial's server read this one."""
    reply = await ask(b"comphash " + make_file(tmp_path, b"hostname"))
    assert text_of(reply) == f"File hash is : {SHA1}\n"


async def test_digest_in_json_and_in_the_record(tmp_path: Path) -> None:
    """A monitoring system gets the facts as fields, and the auditor too."""
    path = make_file(tmp_path, b"hostname")
    reply = await ask(b"comphash " + path)
    facts = {"path": path.decode(), "algorithm": "sha1", "digest": SHA1}
    assert json.loads(format_reply(reply, "json", 7, b"comphash", 0.25)) == {
        "id": 7,
        "command": "comphash",
        "ok": True,
        "result": {**facts, "bytes": 4},
        "seconds": 0.25,
    }
    assert reply.record == {**facts, "size": 4}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_each_algorithm_can_be_named(algorithm: str, tmp_path: Path) -> None:
    """The list one compares with decides which is needed."""
    reply = await ask(b"comphash " + algorithm.encode() + b" \t " + make_file(tmp_path, b"f"))
    expected = hashlib.new(algorithm, b"lab\n").hexdigest()
    assert text_of(reply) == f"File hash is : {expected}\n"


async def test_default_algorithm_is_that_of_the_settings(tmp_path: Path) -> None:
    """A site that has left SHA-1 behind says so once."""
    path = make_file(tmp_path, b"f")
    expected = hashlib.sha256(b"lab\n").hexdigest()
    reply = await ask(b"comphash " + path, Comphash(threads=1, algorithm="sha256"))
    assert text_of(reply) == f"File hash is : {expected}\n"


@pytest.mark.parametrize("line", [b"comphash", b"comphash ", b"comphash \t "])
async def test_missing_path_is_asked_for_in_the_words_of_the_tutorial(line: bytes) -> None:
    """The client learns what is missing."""
    error = await fault(line)
    assert isinstance(error, PathMissing)
    assert (error.code, error.prefix + error.message) == ("bad-arguments", "Please provide a path.")


@pytest.mark.parametrize(
    "name",
    [
        b"with space",
        b"two  spaces",
        b"sha256",
        b"sha256 of the file",
        b"SHA256 file",
        b'it\'s "quoted"',
        b"$(id)",
        b"-rf",
        b"\xff\xfe",
        b"\\x41",
    ],
)
async def test_whole_argument_is_the_path(name: bytes, tmp_path: Path) -> None:
    """No quoting is needed, and none is understood."""
    path = make_file(tmp_path, name)
    assert text_of(await ask(b"comphash " + path)) == f"File hash is : {SHA1}\n"
    assert text_of(await ask(b"comphash sha1   " + path)) == f"File hash is : {SHA1}\n"


async def test_file_named_like_an_algorithm_can_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An algorithm's name with nothing after it is a path."""
    monkeypatch.chdir(tmp_path)
    make_file(tmp_path, b"md5")
    make_file(tmp_path, b"sha1 md5")
    assert text_of(await ask(b"comphash md5")) == f"File hash is : {SHA1}\n"
    md5 = hashlib.md5(b"lab\n").hexdigest()
    assert text_of(await ask(b"comphash md5 md5")) == f"File hash is : {md5}\n"
    assert text_of(await ask(b"comphash ./sha1 md5")) == f"File hash is : {SHA1}\n"


async def test_unsafe_path_is_shown_safely(tmp_path: Path) -> None:
    """A name from the hands of an intruder must not act on the operator's terminal or break JSON."""
    reply = await ask(b"comphash " + make_file(tmp_path, b"\xff\xe2\x80\xae"))
    assert reply.result is not None
    assert reply.result["path"] == f"{tmp_path}/\\xff\\u202e"
    assert reply.record["path"] == f"{tmp_path}/\\xff\\u202e"


async def test_faults_are_told_with_the_path_as_asked(tmp_path: Path) -> None:
    """One line that says what is wrong with what was typed."""
    missing = await fault(b"comphash /nope")
    assert isinstance(missing, NotFound)
    assert missing.prefix + missing.message == (
        "An error occured : [Errno 2] No such file or directory: '/nope'"
    )
    device = await fault(b"comphash sha256 /dev/zero")
    assert isinstance(device, NotARegularFile)
    assert device.message == "not a regular file: '/dev/zero'"
    path = make_file(tmp_path, b"f")
    large = await fault(b"comphash " + path, Comphash(threads=1, max_bytes=3))
    assert isinstance(large, TooLarge)
    long = await fault(b"comphash /" + b"n" * 4095)
    assert isinstance(long, NotFound)
    assert long.message == f"[Errno 36] File name too long: '/{'n' * 4095}'"
