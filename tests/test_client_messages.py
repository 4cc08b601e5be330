"""Lines of hosts, good ones and any others, and questions."""

import contextlib
import json

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from trio_cmd.client.answers import Reply
from trio_cmd.client.errors import AskError, CommandError, ConnectionLost, OtherProtocol, Refused
from trio_cmd.client.messages import Fault, Said, format_question, other_protocol, read_line, read_reply
from trio_cmd.errors import BadEncoding
from trio_cmd.tokens import make_token
from trio_cmd.wire.lines import LineReader
from trio_cmd.wire.messages import parse_request


def said(**values: object) -> Said:
    """Read an object as a host writes it."""
    return read_line(json.dumps(values).encode())


def test_a_result_becomes_a_reply() -> None:
    """What a program gets is what the host has sent, as values."""
    line = said(id=2, command="comphash", ok=True, result={"digest": "ab", "bytes": 4}, seconds=0.5)
    assert read_reply("comphash", line) == Reply("comphash", {"digest": "ab", "bytes": 4}, 0.5)


def test_an_error_keeps_its_code_and_what_there_is_in_spite_of_it() -> None:
    """A program that failed has printed why."""
    fault = {"code": "program-failed", "message": "unit exited with status 3"}
    line = said(id=2, ok=False, result={"lines": ["a"]}, error=fault, seconds=0.25)
    error = read_reply("unit", line)
    assert isinstance(error, CommandError)
    assert (error.code, error.message) == ("program-failed", "unit exited with status 3")
    assert (error.result, error.seconds) == ({"lines": ["a"]}, 0.25)


def test_what_newer_servers_add_is_passed_over() -> None:
    """Hosts are renewed one after the other, and are asked meanwhile."""
    line = said(id=2, ok=True, result={"pong": True, "new": [{"a": 1}]}, more={"deep": [[[1]]]})
    assert read_reply("ping", line) == Reply("ping", {"pong": True, "new": [{"a": 1}]}, 0.0)


@pytest.mark.parametrize(
    "notice",
    [
        b"Too many connections. bye !",
        b"Not allowed from 10.0.0.1. bye !",
        b"Idle for 300 s. bye !",
        b"An error occured : internal error",
        b'{"event":"bye","reason":"idle","message":"Idle for 300 s. bye !"}',
    ],
)
def test_a_goodbye_is_the_hosts_own_sentence(notice: bytes) -> None:
    """Whoever is refused reads why, in the words that the host's manual explains."""
    sentence = json.loads(notice)["message"] if notice.startswith(b"{") else notice.decode()
    with pytest.raises(Refused) as refused:
        read_line(notice)
    assert refused.value.message == sentence


def test_a_goodbye_without_a_word_is_a_lost_connection() -> None:
    """Nobody is refused without a reason."""
    with pytest.raises(ConnectionLost):
        said(event="bye", reason="exit", message="")


def test_an_old_server_is_told_from_another_kind() -> None:
    """The tutorial's server is asked by netcat, or renewed."""
    with pytest.raises(OtherProtocol, match="old server"):
        read_line(b"Command not found.")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2",
        b"[]",
        b"null",
        b'"text"',
        b'{"id":1',
        b'{"id":1}',
        b'{"id":"1","ok":true}',
        b'{"id":true,"ok":true}',
        b'{"id":1.5,"ok":true}',
        b'{"id":1,"ok":1}',
        b'{"id":1,"ok":false}',
        b'{"id":1,"ok":false,"error":"failed"}',
        b'{"id":1,"ok":false,"error":{"code":1,"message":""}}',
        b'{"id":1,"ok":true,"result":[]}',
        b'{"id":1,"ok":true,"result":{"a":[[["deep"]]]}}',
        b'{"id":1,"ok":true,"seconds":-1}',
        b'{"id":1,"ok":true,"seconds":1e999}',
        b'{"id":1,"event":"progress","done":-1,"total":1}',
        b'{"id":1,"ok":true,"result":{"a":"\xff"}}',
        b'{"id":1,"ok":true,"result":{"a":"\\ud800"}}',
        b'{"id":1,"ok":true,"result":{"a":' + b"9" * 5000 + b"}}",
        pytest.param(b'{"id":1,"ok":true,"result":{"a":' + b"[" * 100_000, id="deep result"),
        pytest.param(b'{"id":1,"ok":true,"new":' + b"[" * 100_000, id="deep addition"),
        b"so long, " + b"and" * 200 + b" bye !",
    ],
)
def test_anything_else_is_another_protocol(line: bytes) -> None:
    """A host that sends nonsense costs one line of output, and nothing else."""
    with pytest.raises(OtherProtocol):
        read_line(line)


@given(
    st.binary() | st.text().map(str.encode) | st.builds(bytes, st.lists(st.sampled_from(b'{}[]":,1e-\\u')))
)
def test_any_line_is_understood_or_another_protocol(line: bytes) -> None:
    """No host can end the asking of the others."""
    with contextlib.suppress(AskError):
        read_line(line)


def test_what_is_quoted_of_another_protocol_is_short_safe_and_one_line() -> None:
    """It is shown on a terminal, in a column."""
    message = other_protocol(b"\x1b[2J" + b"x" * 500 + b"\nmore").message
    assert "'\\x1b[2Jxxx" in message
    assert len(message) < 150
    assert other_protocol(b"HTTP/1.0 400 Bad\r\n\r\n").message.endswith("'HTTP/1.0 400 Bad'")


def test_a_token_that_is_quoted_is_hidden() -> None:
    """A host can send back what it was sent; what is cut must not leave a piece of it."""
    token = make_token()
    assert token[5:20] not in other_protocol(b"x" * 60 + token.encode()).message
    assert token[5:20] not in str(read_reply("auth", Said(ok=False, error=Fault("busy", token))))
    assert token[5:20] not in Refused(f"no {token}. bye !").message


@pytest.mark.parametrize("line", ["", " \t ", "ping\nexit", b"\n"])
def test_what_is_no_question_is_not_sent(line: str | bytes) -> None:
    """An empty line has no answer, and two lines have two: the answers behind would be taken for others."""
    with pytest.raises(ValueError, match="a question"):
        format_question(line)


@given(st.binary().filter(lambda line: b"\n" not in line and line.strip(b" \t") != b""))
@example(b"comphash /\xff\xfb\x01")
@example(b"\r")
@example(b"ping\r\0")
@example(b"\xff\xf4")
def test_the_server_reads_each_question_as_it_is(line: bytes) -> None:
    """A path is hashed, or refused, as it was given; and each question has exactly one answer."""
    reader = LineReader(1 << 20)
    reader.feed(format_question(line)[1])
    received = reader.next_line()
    assert received == line
    assert reader.next_line() is None
    with contextlib.suppress(BadEncoding):  # has an answer too
        assert parse_request(received) is not None


def test_text_is_sent_as_the_bytes_of_the_path_it_names() -> None:
    """Names of files need not be UTF-8."""
    assert format_question("comphash /\udcff\u00e4") == ("comphash", b"comphash /\xff\xff\xc3\xa4\r\n")
