"""Tokens: made, compared, and hidden wherever they are."""

import base64
import hashlib
import hmac
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_cmd import tokens
from trio_cmd.escape import escape, escape_lines, quote
from trio_cmd.tokens import (
    TOKEN_CHARACTERS,
    digest_token,
    find_matches,
    is_auth,
    is_token,
    make_token,
    redact,
)

RUN = TOKEN_CHARACTERS.decode()
ANY_BYTES_BUT_RUN = st.binary(max_size=8).filter(lambda data: not set(data) & set(TOKEN_CHARACTERS))


def test_token_is_made_of_256_random_bits() -> None:
    """Nobody guesses one, and no two grants get the same."""
    made = {make_token() for _ in range(50)}
    assert len(made) == 50
    for token in made:
        assert re.fullmatch(r"tcmd_[A-Za-z0-9_-]{43}", token)
        assert len(base64.urlsafe_b64decode(token.removeprefix("tcmd_") + "=")) == 32
        assert is_token(token.encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hunter2",
        b"tcmd_",
        b"tcmd_" + b"A" * 42,
        b"tcmd_" + b"A" * 44,
        b"tcmd_" + b"A" * 43 + b"\n",
        b" tcmd_" + b"A" * 43,
        b"TCMD_" + b"A" * 43,
        b"tcmd_" + b"A" * 42 + b"=",
        b"tcmd_" + b"A" * 42 + b"+",
        b"tcmd_" + "é".encode() * 43,
    ],
)
def test_what_has_not_exactly_the_form_of_a_token_is_none(data: bytes) -> None:
    """A password somebody took for a token is never even compared."""
    assert not is_token(data)


def test_all_grants_of_a_token_are_found_and_no_others() -> None:
    """Two grants may have one token; a wrong token finds none."""
    token = make_token().encode()
    digest, other = hashlib.sha256(token).hexdigest(), digest_token(b"tcmd_" + b"A" * 43)
    assert digest_token(token) == digest
    assert find_matches(token, [other, digest, other, digest]) == [1, 3]
    assert find_matches(token, [other]) == []
    assert find_matches(token, []) == []


def test_all_digests_are_compared_and_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a wrong token takes does not say how near it came, or which grant is the first."""
    compared = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    token = make_token().encode()
    digests = [digest_token(token), "0" * 64, "1" * 64]
    assert find_matches(token, digests) == [0]
    assert compared == [(digests[0], known) for known in digests]


# Hidden


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tcmd_" + "A" * 43, "tcmd_***"),
        ("tcmd_" + "A" * 20, "tcmd_***"),
        ("tcmd_" + "A" * 19, "tcmd_" + "A" * 19),
        ("tcmd_" + "A" * 19 + "\x01" + "A", "tcmd_" + "A" * 19 + r"\x01A"),
        ("TCMD_" + "A" * 43, "TCMD_" + "A" * 43),
        ("xtcmd_" + RUN * 9 + "/b", "xtcmd_***/b"),
        ("/tmp/tcmd_" + RUN + " tcmd_" + RUN, "/tmp/tcmd_*** tcmd_***"),
        ("tcmd_" * 5, "tcmd_***"),
        (repr(b"tcmd_" + RUN.encode()), "b'tcmd_***'"),
        ("\x1btcmd_" + RUN + "\x1b", r"\x1btcmd_***\x1b"),
        ("tcmd_***", "tcmd_***"),
    ],
)
def test_what_looks_like_a_token_is_hidden_and_nothing_else(text: str, shown: str) -> None:
    """A token that lands in an answer or a record by mistake is not given away; other text stays readable."""
    assert escape(text) == escape(text.encode()) == shown
    assert escape_lines(f"one\n{text}\n{text}") == ["one", shown, shown]
    assert quote(text)[1:-1] == shown or "'" in shown
    assert escape(redact(text)) == escape(redact(text.encode())) == shown


@given(ANY_BYTES_BUT_RUN, st.text(RUN, min_size=20, max_size=60), ANY_BYTES_BUT_RUN)
def test_no_surroundings_make_a_token_visible(before: bytes, run: str, after: bytes) -> None:
    """Whatever stands beside it, a token is hidden whole."""
    shown = escape(before + b"tcmd_" + run.encode() + after)
    assert shown == escape(before) + "tcmd_***" + escape(after)
    assert escape(shown) == shown


# Never recorded


@pytest.mark.parametrize(
    "line",
    [
        b"auth",
        b"auth hunter2",
        b" \t auth\thunter2",
        b"AUTH hunter2",
        b"auth:hunter2",
        b"auth\0hunter2",
        b"\x1bauth\x1b hunter2",
        b"auth\xa0hunter2",
        b"auth ***",
    ],
)
def test_a_line_that_begins_with_auth_is_known_however_it_is_written(line: bytes) -> None:
    """A secret is not recorded because of a slip of the pen before it."""
    assert is_auth(line)


@pytest.mark.parametrize(
    "line",
    [b"", b" ", b"ping", b"lastlog 5 auth", b"authors x", b"auth-log", b"auth_x", b"au th x", b"aauth x"],
)
def test_other_lines_are_recorded_as_ever(line: bytes) -> None:
    """A log named auth can be read, and the record says so."""
    assert not is_auth(line)


@given(st.binary(max_size=20))
@example(b"\x00auth")
def test_the_quick_look_at_the_first_byte_misses_nothing(line: bytes) -> None:
    """What is cheap for all lines is right for those of auth."""
    assert is_auth(line) == (tokens._AUTH.match(line) is not None)
    assert is_auth(line[:2] + b"auth ") == (tokens._AUTH.match(line[:2] + b"auth ") is not None)
