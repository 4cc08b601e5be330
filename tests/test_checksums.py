import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from trio_cmd.client.checksums import format_checksum

SHA1 = "ab" * 20


@pytest.mark.parametrize(
    ("command", "algorithm", "path"),
    [
        (b"comphash /etc/hostname", "sha1", b"/etc/hostname"),
        (b"comphash sha256 /etc/hostname", "sha256", b"/etc/hostname"),
        (b"comphash  sha256   /a b ", "sha256", b"/a b"),
        (b"comphash sha9 /a", "sha1", b"sha9 /a"),  # no algorithm that the server knows
        (b"comphash /caf\xe9", "sha1", b"/caf\xe9"),
        (b"verify sha1:00 /a b", "sha1", b"/a b"),
    ],
)
def test_a_digest_stands_before_the_path_as_asked(command: bytes, algorithm: str, path: bytes) -> None:
    """The tools look for the file under the name that was asked, byte for byte."""
    result = {"path": "what the host says of it", "algorithm": algorithm, "digest": SHA1}
    assert format_checksum(command, result) == SHA1.encode() + b"  " + path + b"\n"


@pytest.mark.parametrize(
    ("command", "result"),
    [
        (b"ping", {"pong": True}),
        (b"uptime /a", {"digest": SHA1}),
        (b"verify sha1:00", {"digest": SHA1}),
        (b"verify", {"digest": SHA1}),
        (b"comphash", {"digest": SHA1}),
        (b"", {"digest": SHA1}),
        (b"comphash /a", {}),
        (b"comphash /a", {"digest": 7}),
        (b"comphash /a", {"digest": "abc"}),
        (b"comphash /a", {"digest": SHA1 + "\n"}),
        (b"comphash /a", {"digest": "\x1b[2J" + SHA1}),
    ],
)
def test_what_is_no_digest_becomes_no_line(command: bytes, result: dict[str, object]) -> None:
    """A host can put no line of its own into a file of checksums."""
    assert format_checksum(command, result) is None


@pytest.mark.parametrize("tool", ["sha256sum", "md5sum"])
@pytest.mark.parametrize("name", [b"plain", b"a b", b"a\\b", b"\\", b"a\\nb", b"caf\xe9", b"-", b"*a"])
def test_the_tools_read_the_lines(tmp_path: Path, tool: str, name: bytes) -> None:
    """What one host says can be checked on another by what is installed there."""
    path = os.fsencode(tmp_path) + b"/" + name
    with open(path, "wb") as file:
        file.write(b"something")
    algorithm = tool.removesuffix("sum")
    digest = hashlib.new(algorithm, b"something").hexdigest()
    line = format_checksum(
        b"comphash %s %s" % (algorithm.encode(), path), {"algorithm": algorithm, "digest": digest}
    )
    assert line is not None
    done = subprocess.run([tool, "-c", "--strict"], input=line, capture_output=True)
    assert done.returncode == 0, (line, done)
