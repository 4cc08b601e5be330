"""The answer to a question for a digest becomes a line that ``sha256sum -c`` and its like read."""

import re
from collections.abc import Mapping
from typing import Any

from trio_cmd.wire.messages import parse_request

__all__ = ["format_checksum"]

_HEX = re.compile(r"[0-9a-f]{32,128}")  # of md5 to sha512


def format_checksum(command: bytes, result: Mapping[str, Any]) -> bytes | None:
    """Write the digest and the path as asked, byte for byte; what the host says of the path is for people.

    Args:
        command: the line that was asked.
        result: of the answer.

    Returns:
        One line, or ``None``: the command asks for no digest, or the host has sent none.
    """
    digest = result.get("digest")
    path = _path_of(command, result.get("algorithm"))
    if not path or not isinstance(digest, str) or not _HEX.fullmatch(digest):
        return None
    # The tools mark a line by a backslash when there is one in its name; a line has no other control
    # characters, and a path that was asked none at all.
    marked = b"\\" if b"\\" in path else b""
    return marked + digest.encode() + b"  " + path.replace(b"\\", b"\\\\") + b"\n"


def _path_of(command: bytes, algorithm: object) -> bytes:
    """Find the path in what was asked, by the rule of the server that has answered; empty: there is none."""
    request = parse_request(command)
    if request is None or request.name not in (b"comphash", b"verify"):
        return b""
    first, *rest = request.argument.split(None, 1) or [b""]
    if request.name == b"verify":
        return rest[0] if rest else b""
    return rest[0] if rest and first.decode("ascii", "replace") == algorithm else request.argument
