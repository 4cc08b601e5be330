"""``verify ALGORITHM:HEX PATH``: whether a file still has the digest it should have."""

import hashlib
import string

from trio_cmd.commands.comphash import digest_file, facts_of
from trio_cmd.commands.table import Asker, Command, Surroundings
from trio_cmd.errors import BadArguments
from trio_cmd.escape import quote
from trio_cmd.settings import ALGORITHMS
from trio_cmd.wire.messages import Reply
from trio_cmd.work.hashing import Digest

__all__ = ["COMMAND"]

_USAGE = "verify ALGORITHM:HEX PATH"
_HEX_DIGITS = frozenset(string.hexdigits.encode())
# Name as sent -> name, and how many hex digits its digest has.
_ALGORITHMS = {
    name.encode(): (name, 2 * hashlib.new(name, usedforsecurity=False).digest_size) for name in ALGORITHMS
}


async def verify(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
    """Compare the digest of a file with one from elsewhere.

    Raises:
        BadArguments: what was given is no digest.
        PathMissing: no path is behind it.
        CommandFailed: why the file has no digest.

    Cancel: the hashing ends.
    """
    algorithm, expected, path = _split(argument)
    return _reply(path, await digest_file(path, algorithm, surroundings, asker), expected)


def verify_at_once(argument: bytes, surroundings: Surroundings) -> Reply | None:
    """Compare the digest of a file that takes no waiting; see ``Command.at_once``."""
    algorithm, expected, path = _split(argument)
    digest = surroundings.hashing.digest_at_once(path, algorithm)
    return None if digest is None else _reply(path, digest, expected)


def _reply(path: bytes, digest: Digest, expected: str) -> Reply:
    matches = digest.hex == expected
    facts = facts_of(path, digest)
    return Reply(
        ("File hash matches." if matches else f"File hash differs : {digest.hex}",),
        result={**facts, "bytes": digest.bytes, "matches": matches},
        record={**facts, "size": digest.bytes, "matches": matches},
    )


def _split(argument: bytes) -> tuple[str, str, bytes]:
    """Read the algorithm, the digest in lower case, and the path, empty when there is none."""
    word, *rest = argument.split(None, 1) or [b""]
    return *_parse(word), rest[0] if rest else b""


def _parse(word: bytes) -> tuple[str, str]:
    """Read ``ALGORITHM:HEX``; returns the algorithm and the digest in lower case."""
    name, colon, digest = word.partition(b":")
    if not colon:
        raise BadArguments(f"usage: {_USAGE}")
    if name not in _ALGORITHMS:
        raise BadArguments(f"no algorithm {quote(name)}; the algorithms are: {' '.join(ALGORITHMS)}")
    algorithm, digits = _ALGORITHMS[name]
    if not _HEX_DIGITS.issuperset(digest):
        raise BadArguments(f"expected hex digits behind {algorithm}:")
    if len(digest) != digits:
        raise BadArguments(f"expected {digits} hex digits behind {algorithm}: but found {len(digest)}")
    return algorithm, digest.decode().lower()


COMMAND = Command(
    "verify", _USAGE, "compare the digest of a file with a known one", work=verify, at_once=verify_at_once
)
