"""Tokens: random bytes become one, what a client sends is compared, and what looks like one is hidden.

A token is ``tcmd_`` and 32 random bytes as base64url.  It has a form of its own so that it can be
found, and hidden, wherever somebody has put it by mistake.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from typing import AnyStr

__all__ = [
    "AUTH_SHOWN",
    "PREFIX",
    "TOKEN_CHARACTERS",
    "digest_token",
    "find_matches",
    "is_auth",
    "is_token",
    "make_token",
    "redact",
]

PREFIX = "tcmd_"
TOKEN_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_RANDOM_BYTES = 32
_TOKEN = re.compile(rb"tcmd_[A-Za-z0-9_-]{43}")

# Half of a token is no word of any language either; shorter ones may be names of files.
_LIKE_A_TOKEN = re.compile(r"tcmd_[A-Za-z0-9_-]{20,}")
_LIKE_A_TOKEN_BYTES = re.compile(rb"tcmd_[A-Za-z0-9_-]{20,}")
_HIDDEN = "tcmd_***"

AUTH_SHOWN = "auth ***"
"""What is recorded instead of a line of ``auth``."""

# Also written wrongly: in capitals, with a colon, behind or before a control character.
_AUTH = re.compile(rb"[\x00-\x20\x7f]*auth(?![a-z0-9_-])", re.IGNORECASE)
_AUTH_FIRST_BYTES = frozenset((b"a", b"A", b"\x7f", *(bytes([byte]) for byte in range(0x21))))


def make_token() -> str:
    """Make a token that nobody can guess."""
    return PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(_RANDOM_BYTES)).decode().rstrip("=")


def is_token(data: bytes) -> bool:
    """Tell whether something has exactly the form of a token."""
    return _TOKEN.fullmatch(data) is not None


def digest_token(token: bytes) -> str:
    """Give the SHA-256 digest of a token, in hex digits of lower case: what the settings hold of it.

    A password needs salt and a slow hash, because people choose from few of them, and one computes
    the digests of all likely ones.  Of 256 random bits none is likely: whoever has the digest would
    have to try all of them, and a slow hash would only let clients make the server slow.
    """
    return hashlib.sha256(token).hexdigest()


def find_matches(token: bytes, digests: Sequence[str]) -> list[int]:
    """Find the digests that are a token's.

    Args:
        token: of the form of one, see ``is_token``.
        digests: in hex digits of lower case.

    Returns:
        Their places, none when the token is wrong.  All are compared, each in constant time, so how
        long it takes says nothing of how near a wrong one comes.
    """
    digest = digest_token(token)
    return [place for place, known in enumerate(digests) if hmac.compare_digest(digest, known)]


def redact(text: AnyStr) -> AnyStr:
    """Show what looks like a token as ``tcmd_***``: the whole run of such characters.

    What is cut must be redacted before: a piece of a token is not found any more.
    """
    if isinstance(text, bytes):
        return _LIKE_A_TOKEN_BYTES.sub(_HIDDEN.encode(), text)
    return _LIKE_A_TOKEN.sub(_HIDDEN, text)


def is_auth(line: bytes) -> bool:
    """Tell whether a line begins with the word ``auth``, however it is written; it is then not recorded."""
    return line[:1] in _AUTH_FIRST_BYTES and _AUTH.match(line) is not None
