r"""A manifest of ``sha256sum`` and its like enters, what each file should be leaves.

Its lines are ``HEX  PATH`` and ``HEX *PATH``, whose algorithm is known by the length of the digest,
or ``SHA256 (PATH) = HEX``, as ``--tag`` writes them.  A line that begins with a backslash has ``\\``
for a backslash in its path, and ``\n`` and ``\r`` for line ends.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trio_cmd.client.sources import Source
from trio_cmd.errors import BadEncoding
from trio_cmd.escape import escape
from trio_cmd.settings import ALGORITHMS
from trio_cmd.wire.messages import BLANKS, parse_request

__all__ = ["Expected", "read_manifest"]

_DIGITS = {name: 2 * hashlib.new(name, usedforsecurity=False).digest_size for name in ALGORITHMS}
# The first of a length: 64 digits are sha256 and 128 are sha512; what else has so many needs its tag.
_BY_DIGITS: Mapping[int, str] = {_DIGITS[name]: name for name in reversed(ALGORITHMS)}
# As coreutils, the BSDs and OpenSSL spell them; in lower case.
_TAGS: Mapping[bytes, str] = {
    **{name.replace("_", "-").encode(): name for name in ALGORITHMS},
    b"sha2-256": "sha256",
    b"sha2-512": "sha512",
    b"blake2b-512": "blake2b",
}
# The second blank is a star for what was read as binary; some programs leave it out.
_PLAIN = re.compile(rb"([0-9a-fA-F]+) [ *]?(.*)", re.DOTALL)
_TAGGED = re.compile(rb"([A-Za-z0-9-]+) ?\((.*)\) ?= ([0-9a-fA-F]+)", re.DOTALL)
_ESCAPE = re.compile(rb"\\(.?)", re.DOTALL)
_ESCAPED: Mapping[bytes, bytes] = {b"\\": b"\\", b"n": b"\n", b"r": b"\r"}


@dataclass(frozen=True, slots=True)
class Expected:
    """What a file should be.

    Attributes:
        algorithm: one that servers know.
        digest: in hex digits of lower case.
        path: can be asked for.
    """

    algorithm: str
    digest: str
    path: bytes

    @property
    def command(self) -> bytes:
        """The line that asks whether the file is so."""
        return f"verify {self.algorithm}:{self.digest} ".encode() + self.path


def read_manifest(source: Source) -> tuple[Expected, ...]:
    """Read a manifest; empty lines, and those that begin with ``#``, are for people.

    Raises:
        ValueError: what is wrong, with its file and line, or that there is nothing in it.
    """

    def parse(line: bytes) -> Sequence[Expected]:
        return () if not line.strip(BLANKS) or line.startswith(b"#") else (parse_expected(line),)

    return tuple(source.read_each(parse, "no file in it; write it with sha256sum FILE ..."))


def parse_expected(line: bytes) -> Expected:
    """Read one line, without its ending.

    Raises:
        ValueError: what is wrong with it and what to do, in one line.
    """
    is_escaped = line.startswith(b"\\")
    line = line.removeprefix(b"\\")
    if tagged := _TAGGED.fullmatch(line):
        tag, path, digest = tagged.groups()
        algorithm = _tagged_algorithm(tag, len(digest))
    elif plain := _PLAIN.fullmatch(line):
        digest, path = plain.groups()
        algorithm = _algorithm(len(digest))
    else:
        raise ValueError("expected HEX  PATH, as sha256sum writes it, or SHA256 (PATH) = HEX")
    path = _ESCAPE.sub(_unescape, path) if is_escaped else path
    _check_path(path)
    return Expected(algorithm, digest.decode().lower(), path)


def _algorithm(digits: int) -> str:
    if digits not in _BY_DIGITS:
        known = ", ".join(f"{name} has {count}" for count, name in sorted(_BY_DIGITS.items()))
        raise ValueError(f"no algorithm of the servers has {digits} hex digits: {known}")
    return _BY_DIGITS[digits]


def _tagged_algorithm(tag: bytes, digits: int) -> str:
    algorithm = _TAGS.get(tag.lower())
    if algorithm is None:
        raise ValueError(f"no algorithm {escape(tag)}; the servers know {', '.join(ALGORITHMS)}")
    if digits != _DIGITS[algorithm]:
        raise ValueError(f"{algorithm} has {_DIGITS[algorithm]} hex digits, not {digits}; write it anew")
    return algorithm


def _unescape(match: re.Match[bytes]) -> bytes:
    if match[1] not in _ESCAPED:
        raise ValueError(r"expected \\, \n or \r behind the backslash at the beginning; write it anew")
    return _ESCAPED[match[1]]


def _check_path(path: bytes) -> None:
    """Refuse a path that no line of the wire can name.

    Raises:
        ValueError: why, and what to do.
    """
    if not path.strip(BLANKS) or path == b"-":
        raise ValueError("there is no path; give sha256sum the name of the file, not its contents")
    if path != path.strip(BLANKS):
        raise ValueError("a path with blanks at its ends cannot be asked for; take it out or rename the file")
    try:
        parse_request(path)
    except BadEncoding:
        raise ValueError(
            "a path with control characters cannot be asked for; take it out or rename the file"
        ) from None
