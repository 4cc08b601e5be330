"""Bytes in any pieces become lines."""

import time
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_cmd.errors import LineTooLong
from trio_cmd.wire.lines import LineReader

MAX_BYTES = 8

# Pieces of which trouble is made, so that it meets itself often.
_TROUBLE = [
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xfa",
    b"\xf0",
    b"\xfb",
    b"\xfd",
    b"\xf1",
    b"a",
    b"ab cd",
    b"\r\n",
]
STREAMS = st.lists(st.sampled_from(_TROUBLE) | st.binary(max_size=3), max_size=30).map(b"".join)

Lines = list[bytes | str]


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """Cut bytes at some places."""
    begin = 0
    for place in [*sorted(place % (len(data) + 1) for place in places), len(data)]:
        yield data[begin:place]
        begin = place


def take_all(reader: LineReader) -> Iterator[bytes | str]:
    """Take what there is; an error is the last."""
    try:
        while (line := reader.next_line()) is not None:
            yield line
    except LineTooLong as error:
        yield error.message


def read(pieces: Iterable[bytes], *, max_bytes: int = MAX_BYTES, is_eager: bool = True) -> Lines:
    """Read a whole stream, taking lines as soon as they are there or only at the end."""
    reader = LineReader(max_bytes)
    lines: Lines = []
    for piece in pieces:
        reader.feed(piece)
        if is_eager:
            lines += take_all(reader)
            if lines and isinstance(lines[-1], str):
                return lines
    reader.end()
    return [*lines, *take_all(reader)]


def without_telnet(line: bytes) -> bytes:
    """RFC 854 and 855, one byte after the other."""
    kept = bytearray()
    state = "data"
    for byte in line:
        if state == "data":
            if byte == 0xFF:
                state = "command"
            else:
                kept.append(byte)
        elif state == "command":
            if byte == 0xFF:
                kept.append(byte)
            state = "option" if 0xFB <= byte <= 0xFE else "inside" if byte == 0xFA else "data"
        elif state == "option":
            state = "data"
        elif state == "inside":
            state = "leaving" if byte == 0xFF else "inside"
        else:
            state = "data" if byte == 0xF0 else "inside"
    return bytes(kept)


def without_ending(line: bytes) -> bytes:
    return line[:-2] if line.endswith(b"\r\0") else line[:-1] if line.endswith(b"\r") else line


def expected_lines(data: bytes) -> Lines:
    """Cut a whole stream in the plainest way."""
    pieces = data.split(b"\n")
    if not pieces[-1]:
        pieces.pop()
    lines: Lines = []
    for piece in pieces:
        if len(without_ending(piece)) > MAX_BYTES:
            return [*lines, f"line longer than {MAX_BYTES} bytes"]
        lines.append(without_ending(without_telnet(piece)))
    return lines


@given(STREAMS)
@example(b"\xff\xfa1\xff\xff\xf0\xff\xf0ok\n")
@example(b"\xff\xfa1\nok\n")
@example(b"12345678\r\0\n123456789")
def test_lines_are_those_of_the_manual(data: bytes) -> None:
    """Any client, also a telnet one, is understood as the manual says."""
    assert read([data]) == expected_lines(data)


@given(STREAMS, st.lists(st.integers(min_value=0), max_size=8), st.booleans())
def test_where_the_packets_were_cut_changes_nothing(data: bytes, places: list[int], is_eager: bool) -> None:
    """The same bytes give the same lines and the same error over any network."""
    assert read(cut(data, places), is_eager=is_eager) == read([data])


@given(STREAMS)
def test_bytes_that_come_one_by_one_give_the_same_lines(data: bytes) -> None:
    """A person who types into a raw terminal is understood like a script."""
    assert read(data[at : at + 1] for at in range(len(data))) == read([data])


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"ping\n", [b"ping"]),
        (b"ping\r\n", [b"ping"]),
        (b"ping\r\0\n", [b"ping"]),
        (b"ping", [b"ping"]),
        (b"ping\r", [b"ping"]),
        (b"ping\r\r\n", [b"ping\r"]),
        (b"\n\n", [b"", b""]),
        (b"", []),
        (b"\xff\xfd\x06ping\n", [b"ping"]),
        (b"pi\xff\xf1ng\n", [b"ping"]),
        (b"a\xff\xffb\n", [b"a\xffb"]),
        (b"a\xff\xfa\x18\xff\xf0b\n", [b"ab"]),
        (b"a\xff\xfa\x18\nb\n", [b"a", b"b"]),
        (b"a\xff\nb\n", [b"a", b"b"]),
        (b"a\xff\xfb\nb\n", [b"a", b"b"]),
        (b"a\xff\xfa\xff\n", [b"a"]),
        (b"a\r\xff\xf1\n", [b"a"]),
    ],
)
def test_endings_and_telnet_commands_are_no_part_of_a_line(data: bytes, lines: Lines) -> None:
    """netcat, telnet and Windows clients get the same answers."""
    assert read([data], max_bytes=100) == lines


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r\0\n", b""])
def test_a_line_of_exactly_the_limit_is_read_and_one_byte_more_is_not(ending: bytes) -> None:
    """The limit is that of the manual, whatever the line ends with."""
    at_limit, over = b"x" * MAX_BYTES + ending, b"x" * (MAX_BYTES + 1) + ending
    assert read([at_limit]) == [b"x" * MAX_BYTES]
    assert read([over]) == ["line longer than 8 bytes"]
    assert read(over[at : at + 1] for at in range(len(over))) == ["line longer than 8 bytes"]


def test_lines_before_one_too_long_are_still_given_out() -> None:
    """What was asked properly is answered, before the client is told and cut."""
    assert read([b"one\ntwo\n" + b"x" * 9 + b"\nthree\n"]) == [b"one", b"two", "line longer than 8 bytes"]


def test_a_line_without_end_is_refused_before_it_ends() -> None:
    """200 MB without a newline take no memory: the error comes with the first byte too many."""
    reader = LineReader(MAX_BYTES)
    reader.feed(b"x" * (MAX_BYTES + 1))
    assert reader.has_lines
    for _ in range(2):  # and it stays refused
        with pytest.raises(LineTooLong):
            reader.next_line()


def test_a_complete_line_too_long_stays_refused() -> None:
    """Nothing behind a line that was too long is ever run."""
    reader = LineReader(MAX_BYTES)
    reader.feed(b"x" * (MAX_BYTES + 1) + b"\nping\n")
    for _ in range(2):
        with pytest.raises(LineTooLong):
            reader.next_line()


def test_the_reader_tells_what_is_there() -> None:
    """The clock of an unfinished line runs only while there is one."""
    reader = LineReader(MAX_BYTES)
    assert (reader.has_lines, reader.is_unfinished, reader.taken) == (False, False, 0)
    reader.feed(b"pi")
    assert (reader.has_lines, reader.is_unfinished) == (False, True)
    assert reader.next_line() is None
    reader.feed(b"ng\npo")
    reader.feed(b"ng\n")
    assert (reader.has_lines, reader.is_unfinished) == (True, False)
    assert [reader.next_line(), reader.next_line(), reader.next_line()] == [b"ping", b"pong", None]
    assert (reader.has_lines, reader.taken) == (False, 2)
    reader.end()
    assert not reader.has_lines


def test_a_long_line_in_small_packets_costs_time_in_proportion() -> None:
    """A client that dribbles a long line does not slow the others; searching again took 34 s."""
    reader = LineReader(8 << 20)
    began = time.process_time()
    for _ in range(1 << 16):
        reader.feed(b"x" * 64)
        assert not reader.has_lines
    reader.feed(b"\n")
    line = reader.next_line()
    assert line is not None
    assert len(line) == 4 << 20
    assert time.process_time() - began < 3


def test_a_subnegotiation_without_end_costs_time_in_proportion() -> None:
    """No pattern of telnet bytes makes the server search for long."""
    reader = LineReader(1 << 20)
    began = time.process_time()
    for half in (b"\xff\xfa", b"\xff\xfa" + b"\xff\xff" * 1000, b"\xff", b"\xff\xfb", b"\xff\xfa\xff\xf1"):
        reader.feed(half * ((1 << 19) // len(half)) + b"\n")
        assert reader.next_line() is not None
    assert time.process_time() - began < 3
