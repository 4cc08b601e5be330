"""Text made safe to show."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_cmd.escape import escape, escape_lines, quote

ANY_TEXT = st.text(st.characters(codec=None))  # lone surrogates too
ACTED_ON = {"Cc", "Cs", "Zl", "Zp"}
DIRECTIONS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def is_safe(text: str) -> bool:
    """Whether no terminal, log reader or editor does anything with it but show it."""
    return not DIRECTIONS.search(text) and all(
        char == "\t" or unicodedata.category(char) not in ACTED_ON for char in text
    )


@given(st.binary() | ANY_TEXT)
def test_what_was_escaped_is_safe_whatever_it_was(data: bytes | str) -> None:
    """An operator's terminal is not steered by what a client or a log file holds."""
    text = escape(data)
    assert is_safe(text)
    assert len(text.splitlines()) <= 1
    assert text.encode().decode() == text


@given(st.binary() | ANY_TEXT)
def test_what_was_escaped_stays_when_escaped_again(data: bytes | str) -> None:
    """A message that passes two layers reads the same as after one."""
    assert escape(escape(data)) == escape(data)


@given(ANY_TEXT)
def test_text_that_is_safe_is_shown_as_it_is(text: str) -> None:
    """A log in any language is readable: only what is dangerous changes."""
    if is_safe(text):
        assert escape(text) == text
    else:
        assert escape(text) != text


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"a\tb c", "a\tb c"),
        (b"\x00\x1b[31m\r\n\x7f", r"\x00\x1b[31m\x0d\x0a\x7f"),
        ("\x80\x9b\x9f\xa0é".encode(), "\\x80\\x9b\\x9f\xa0é"),
        (b"\xff\xc3caf\xc3\xa9", r"\xff\xc3café"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),
        ("\udcff\ud800", r"\xff\ud800"),
        (
            "\u2028\u2029\u200e\u200f\u202a\u202e\u2066\u2069",
            r"\u2028\u2029\u200e\u200f\u202a\u202e\u2066\u2069",
        ),
        ("\u200d\u2065\u206a😀", "\u200d\u2065\u206a😀"),
        (b"", ""),
    ],
)
def test_characters_are_spelled_as_the_manual_says(data: bytes | str, shown: str) -> None:
    """What is read in an answer or a record can be traced back to the byte."""
    assert escape(data) == shown


@given(st.binary() | ANY_TEXT)
def test_lines_are_those_that_line_feeds_end_and_each_is_safe(data: bytes | str) -> None:
    """The output of a program has as many lines in the answer as it printed, none of them steering."""
    pieces: list[str] | list[bytes]
    pieces = data.split("\n") if isinstance(data, str) else data.split(b"\n")
    if not pieces[-1]:
        pieces.pop()
    assert escape_lines(data) == [escape(piece) for piece in pieces]


def test_carriage_returns_at_line_ends_are_shown() -> None:
    """A log written on Windows does not overwrite itself on the operator's screen."""
    assert escape_lines(b"one\r\n\ntwo") == ["one\\x0d", "", "two"]
    assert escape_lines(b"") == []
    assert escape_lines(b"\n") == [""]


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"], exclude_characters="\\")))
def test_quotes_are_those_of_python(text: str) -> None:
    """A path in an error reads as in any Python program, with its quotes told from its own."""
    assert quote(text) == repr(text)


@given(st.binary())
def test_quoted_text_is_safe_and_enclosed(path: bytes) -> None:
    """Where a name begins and ends can be seen, whatever is in it."""
    quoted = quote(path)
    assert is_safe(quoted)
    assert quoted[0] == quoted[-1] in "'\""


def test_text_with_both_quotes_is_quoted_as_python_does() -> None:
    """An operator can tell where a name begins and ends, whatever is in it."""
    for text in ("plain", "it's", 'the "one"', 'it\'s the "one"'):
        assert quote(text) == repr(text)
