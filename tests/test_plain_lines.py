"""Lines that are remembered read as if they were new, and no secret is among them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_cmd.records.template import MAX_SHOWN, make_pieces
from trio_cmd.server.plain_lines import MAX_LINES, PlainLines
from trio_cmd.server.trail import show_line
from trio_cmd.wire.lines import LineReader
from trio_cmd.wire.messages import is_other_protocol, parse_request

TOKEN = b"tcmd_" + b"a" * 43
ENDINGS = st.sampled_from((b"", b"\r", b"\r\0"))
ANY_LINE = st.binary(max_size=MAX_SHOWN + 2) | st.text(st.characters(max_codepoint=0x7E)).map(str.encode)


def read(line: bytes) -> bytes:
    """Have a line without its ending, as the session does."""
    reader = LineReader(8192)
    reader.feed(line + b"\n")
    found = reader.next_line()
    assert found is not None
    return found


@given(ANY_LINE.filter(lambda line: b"\n" not in line), ENDINGS)
def test_what_is_remembered_is_what_the_ordinary_way_reads(line: bytes, ending: bytes) -> None:
    """The second ping is the same command as the first."""
    lines = PlainLines()
    first, second = lines.recall(line + ending), lines.recall(line + ending)
    assert first is second
    if first is not None:
        taken = read(line + ending)
        assert not is_other_protocol(taken)
        request = parse_request(taken)
        assert request == (first.name, first.argument)
        words = (first.name.decode(), first.argument.decode())
        assert first.pieces == make_pieces(show_line(taken), *words)


@pytest.mark.parametrize("line", [b"ping", b" ping  x ", b"ping\r", b"comphash /etc/hostname", b"~"])
def test_plain_lines_are_remembered(line: bytes) -> None:
    """What monitoring asks for ever costs nothing to read."""
    assert PlainLines().recall(line) is not None


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b" ", b"\r", b"\tping", b"ping\tx", b"p\xffing", b"p\xc3\xafng", b"ping\0", b"p\ring"),
        *(b"auth " + TOKEN, b"AUTH: x", b" auth", b"ping " + TOKEN, b"ping tcmd_x"),
        *(b"GET / HTTP/1.1", b"SSH-2.0-x", b"x" * (MAX_SHOWN + 1)),
    ],
)
def test_what_needs_care_is_not_remembered(line: bytes) -> None:
    """No secret stays in the memory, and nothing that is to be looked at is passed by."""
    lines = PlainLines()
    assert lines.recall(line) is None
    assert not lines._known


def test_the_oldest_gives_way() -> None:
    """Who asks something new each time fills no memory."""
    lines = PlainLines()
    for number in range(MAX_LINES + 1):
        assert lines.recall(b"ping %d" % number) is not None
    assert len(lines._known) == MAX_LINES
    assert b"ping 0" not in lines._known
