"""A line becomes a request, a reply becomes bytes."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_cmd.errors import (
    BadEncoding,
    CommandFailed,
    HostFault,
    LineTooLong,
    NotFound,
    PathMissing,
    ProgramFailed,
    UnknownCommand,
    from_os_error,
)
from trio_cmd.escape import escape, escape_lines
from trio_cmd.wire.lines import LineReader
from trio_cmd.wire.messages import (
    NOTICES,
    Form,
    Reply,
    Request,
    format_notice,
    format_reply,
    is_binary,
    is_other_protocol,
    parse_request,
)


def as_json(reply: Reply, name: bytes | None = b"x", seconds: float = 0.5) -> dict[str, Any]:
    """The JSON form of a reply, read again."""
    data = format_reply(reply, "json", 7, name, seconds)
    assert data.endswith(b"}\n")
    assert data.count(b"\n") == 1
    answer: dict[str, Any] = json.loads(data)
    return answer


def as_text(reply: Reply) -> str:
    """The text form of a reply."""
    return format_reply(reply, "text", 7, b"x", 0.5).decode()


# Requests


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        (b"ping", Request(b"ping", b"")),
        (b" \tping\t ", Request(b"ping", b"")),
        (b"comphash /a b  c ", Request(b"comphash", b"/a b  c")),
        (b"comphash\t\t/a\tb", Request(b"comphash", b"/a\tb")),
        (b"comphash /\xff\xc3\xa9'\"\\", Request(b"comphash", b"/\xff\xc3\xa9'\"\\")),
        ("comphash\u00a0/x".encode(), Request("comphash\u00a0/x".encode(), b"")),
        ("comphash /\u0085x".encode(), Request(b"comphash", "/\u0085x".encode())),
        (b"", None),
        (b" \t ", None),
    ],
)
def test_a_line_is_a_word_and_the_rest_without_blanks_around_it(
    line: bytes, request_: Request | None
) -> None:
    """Every file name without control characters and blanks at its ends can be asked for."""
    assert parse_request(line) == request_


@pytest.mark.parametrize("byte", sorted({*range(0x20), 0x7F} - {0x09}))
def test_control_characters_make_the_line_bad(byte: int) -> None:
    """A stray escape or NUL is said aloud and not half understood."""
    for line in (bytes([byte]), b"ping" + bytes([byte]), b"comphash /a" + bytes([byte]) + b"b"):
        with pytest.raises(BadEncoding):
            parse_request(line)


@given(st.binary())
def test_a_request_holds_the_bytes_that_were_sent(line: bytes) -> None:
    """No byte of a path is lost or made up on the way to the file."""
    try:
        request = parse_request(line)
    except BadEncoding:
        assert re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", line)
        return
    if request is None:
        assert not line.strip(b" \t")
        return
    name, blanks, rest = re.fullmatch(rb"([^ \t]+)([ \t]*)(.*)", line.strip(b" \t"), re.DOTALL).groups()  # type: ignore[union-attr]  # it always matches
    assert request == Request(name, rest)
    assert bool(blanks) == bool(rest)


# First lines of other protocols


@pytest.mark.parametrize(
    "line",
    [b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"PRI * HTTP/2.0", b"SSH-2.0-OpenSSH_9.2", b"SSH-"],
)
def test_first_lines_of_other_protocols_are_known(line: bytes) -> None:
    """A browser or scanner that comes by runs nothing."""
    assert is_other_protocol(line)


@pytest.mark.parametrize(
    "line", [b"comphash /srv/HTTP/1.1", b"GET / HTTP/1.1 x", b"GET / HTTP/3.0", b"ssh-x", b" SSH-", b"ping"]
)
def test_lines_that_only_look_like_other_protocols_are_ours(line: bytes) -> None:
    """A file may be called what it likes."""
    assert not is_other_protocol(line)


def test_first_bytes_of_a_tls_hello_are_known() -> None:
    """A TLS client at the plain port is not answered with errors about its bytes."""
    assert is_binary(b"\x16\x03\x01")
    assert is_binary(b"\x80.")
    assert not is_binary(b"ping\x16")
    assert not is_binary(b"")


# Replies


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(("pong",)), "pong\n"),
        (Reply(("a", "b"), block="lastlog"), "Begin lastlog\na\nb\nEnd lastlog\n"),
        (Reply((), block="lastlog"), "Begin lastlog\nEnd lastlog\n"),
        (Reply(("",), block="lastlog"), "Begin lastlog\n\nEnd lastlog\n"),
        (Reply(error=UnknownCommand()), "Command not found.\n"),
        (Reply(error=PathMissing()), "Please provide a path.\n"),
        (Reply(error=NotFound("no such log")), "An error occured : no such log\n"),
        (Reply((), block="up", error=ProgramFailed("up", 1)), "An error occured : up exited with status 1\n"),
        (
            Reply(("a",), block="up", error=ProgramFailed("up", 1)),
            "Begin up\na\nAn error occured : up exited with status 1\nEnd up\n",
        ),
        (Reply(closes=True), ""),
    ],
)
def test_text_is_the_tutorials(reply: Reply, text: str) -> None:
    """Scripts written against the tutorial's server go on working."""
    assert as_text(reply) == text


def test_json_has_one_object_for_each_command_in_the_manuals_order() -> None:
    """A line of JSON can be read by eye: whose answer it is comes first."""
    answer = format_reply(Reply(("pong",), result={"pong": True}), "json", 2, b"ping", 0.00041234567)
    assert answer == b'{"id":2,"command":"ping","ok":true,"result":{"pong":true},"seconds":0.000412}\n'
    failed = format_reply(Reply(error=UnknownCommand()), "json", 4, b"nope", 0.0)
    assert failed == (
        b'{"id":4,"command":"nope","ok":false,'
        b'"error":{"code":"unknown-command","message":"Command not found."},"seconds":0.0}\n'
    )


def test_json_of_a_program_that_failed_has_its_output_beside_the_error() -> None:
    """What a program said before it failed is not lost."""
    answer = as_json(Reply(("a",), block="up", result={"lines": ["a"]}, error=ProgramFailed("up", 1)))
    assert (answer["ok"], answer["result"]) == (False, {"lines": ["a"]})
    assert answer["error"] == {"code": "program-failed", "message": "up exited with status 1"}


def test_json_names_a_command_as_sent_but_not_endlessly() -> None:
    """A client sees which of its words was not known; a long one is not sent back whole."""
    assert as_json(Reply(error=UnknownCommand()), b"y" * 100)["command"] == "y" * 64
    assert as_json(Reply(error=UnknownCommand()), b"\xff\x1b")["command"] == r"\xff\x1b"
    assert as_json(Reply(error=BadEncoding()), None)["command"] is None


@pytest.mark.parametrize("before", [0, 40, 50, 58, 62, 64])
def test_json_shows_no_piece_of_a_token_where_a_name_is_cut(before: int) -> None:
    """A token pasted in the place of a command is hidden also where only its beginning would fit."""
    name = b"x" * before + b"tcmd_" + b"S3cret_-" * 6
    shown = as_json(Reply(error=UnknownCommand()), name)["command"]
    assert shown == ("x" * before + "tcmd_***")[:64]


def test_json_of_exit_is_only_its_notice() -> None:
    """The last object of a conversation says that it ended."""
    assert format_reply(Reply(closes=True), "json", 1, b"exit", 0.0) == b""
    assert format_notice("exit", "json") == b'{"event":"bye","reason":"exit","message":""}\n'


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("idle", "Idle for 300 s. bye !"),
        ("slow-line", "Line not finished in 300 s. bye !"),
        ("too-many-clients", "Too many connections. bye !"),
        ("not-allowed", "Not allowed from 10.0.0.1. bye !"),
        ("too-many-errors", "Too many errors. bye !"),
        ("bad-token", "Too many wrong tokens. bye !"),
        ("stopping", "Server is stopping. bye !"),
        ("crashed", "An error occured : internal error"),
    ],
)
def test_notices_say_why_the_connection_ends(reason: str, message: str) -> None:
    """Nobody who is cut has to guess why."""
    assert format_notice(reason, "text", seconds=300.0, address="10.0.0.1") == message.encode() + b"\n"
    spoken = json.loads(format_notice(reason, "json", seconds=300.0, address="10.0.0.1"))
    assert spoken == {"event": "bye", "reason": reason, "message": message}


@pytest.mark.parametrize("reason", ["closed", "reset", "slow-reader", "wrong-protocol", "line-too-long"])
def test_reasons_without_a_notice_say_nothing(reason: str) -> None:
    """Who has left, or was told by its last answer, is not told again."""
    assert format_notice(reason, "text") == format_notice(reason, "json") == b""
    assert reason not in NOTICES


def replies_to(data: bytes) -> list[tuple[Reply, bytes | None]]:
    """Answer any stream as a session does that finds no file."""
    reader = LineReader(64)
    reader.feed(data)
    reader.end()
    replies: list[tuple[Reply, bytes | None]] = []
    while True:
        try:
            line = reader.next_line()
            request = None if line is None else parse_request(line)
        except LineTooLong as error:
            return [*replies, (Reply(error=error), None)]
        except CommandFailed as error:
            replies.append((Reply(error=error), None))
            continue
        if line is None:
            return replies
        if request is not None:
            lost: HostFault = from_os_error(FileNotFoundError(2, "no"), request.argument)
            replies.append((Reply(error=lost), request.name))
            echo = escape_lines(request.argument)
            replies.append((Reply(echo, block="echo", result={"lines": echo}), request.name))


@given(st.binary(max_size=200), st.sampled_from(["text", "json"]))
def test_any_bytes_give_replies_and_never_an_exception(data: bytes, form: Form) -> None:
    """No client can crash its session, or forge a second answer, by what it sends."""
    for reply, name in replies_to(data):
        answer = format_reply(reply, form, 1, name, 0.1)
        if form == "text":
            assert answer.decode().count("\n") == len(answer.decode().splitlines())
            if reply.error is not None:
                assert answer.count(b"\n") == 1
                assert answer.startswith(b"An error occured : ")
        else:
            spoken = as_json(reply, name)
            assert list(spoken) in (
                ["id", "command", "ok", "result", "seconds"],
                ["id", "command", "ok", "error", "seconds"],
            )
            assert spoken["command"] == (None if name is None else escape(name[:64]))


def test_an_answer_cannot_be_changed() -> None:
    """Fifty clients can get the same one."""
    with pytest.raises(AttributeError):
        Reply(("a",)).lines = ("b",)  # type: ignore[misc]  # what mypy forbids, so does the struct


def test_each_form_of_an_answer_is_written_once() -> None:
    """A megabyte that fifty clients asked for is neither joined nor encoded nor kept fifty times."""
    reply = Reply(("a", "b"), block="x", result={"lines": ["a", "b"]})
    text = format_reply(reply, "text", 1, b"x", 0.1)
    assert format_reply(reply, "text", 2, b"x", 0.2) is text
    assert reply.encoded_result() is reply.encoded_result()
    first, second = (json.loads(format_reply(reply, "json", n, b"x", n)) for n in (1, 2))
    assert first["result"] == second["result"] == {"lines": ["a", "b"]}
    assert (first["id"], second["id"]) == (1, 2)
