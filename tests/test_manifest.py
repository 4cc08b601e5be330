r"""Manifests of ``sha256sum`` and its like."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_cmd.client.manifest import Expected, parse_expected, read_manifest
from trio_cmd.client.sources import Source
from trio_cmd.escape import escape
from trio_cmd.settings import ALGORITHMS
from trio_cmd.wire.messages import parse_request

HEX = hashlib.sha256(b"").hexdigest().encode()


def complaint_of(line: bytes) -> str:
    with pytest.raises(ValueError, match=r"\A.+\Z") as caught:
        parse_expected(line)
    return str(caught.value)


def file(path: bytes) -> Expected:
    return Expected("sha256", HEX.decode(), path)


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (HEX + b"  /a", b"/a"),
        (HEX + b" */a", b"/a"),
        (HEX + b" /a", b"/a"),
        (HEX.upper() + b"  /a", b"/a"),
        (HEX + b"  *a", b"*a"),
        (HEX + b"  /a  b (c) = d", b"/a  b (c) = d"),
        (HEX + rb"  /a\nb", rb"/a\nb"),
        (b"\\" + HEX + rb"  /a\\nb", rb"/a\nb"),
        (HEX + b"  /\xff\xc3", b"/\xff\xc3"),
        (b"SHA256 (/a) = " + HEX, b"/a"),
        (b"SHA256 (/a) = b) = " + HEX, b"/a) = b"),
        (b"\\" + rb"SHA256 (/a\\b) = " + HEX, rb"/a\b"),
        (b"SHA2-256(/a)= " + HEX, b"/a"),
    ],
)
def test_a_line_is_read_as_those_who_write_it_mean_it(line: bytes, path: bytes) -> None:
    """What is in the operator's files needs no conversion."""
    assert parse_expected(line) == file(path)


def test_what_is_expected_becomes_a_line_of_the_wire() -> None:
    """The path goes out byte by byte, as it was read."""
    assert file(b"/a b\xff").command == b"verify sha256:" + HEX + b" /a b\xff"


@pytest.mark.parametrize(
    ("digits", "algorithm"), [(32, "md5"), (40, "sha1"), (64, "sha256"), (128, "sha512")]
)
def test_the_length_of_a_digest_tells_its_algorithm(digits: int, algorithm: str) -> None:
    """The programs of coreutils do not write it down."""
    assert parse_expected(b"a" * digits + b"  /f").algorithm == algorithm


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_of_the_servers_has_its_tag(name: str) -> None:
    """Two algorithms with digests of one length are told apart by it."""
    digest = hashlib.new(name, usedforsecurity=False).hexdigest()
    line = f"{name.upper().replace('_', '-')} (/f) = {digest}"
    assert parse_expected(line.encode()) == Expected(name, digest, b"/f")


NAMES = [
    b"plain",
    b"with  blanks",
    rb"back\slash",
    b"(a) = b",
    b"*star",
    b"\xff\xfe",
    b"\xc3\xa9",
    b"tab\there",
]


@pytest.mark.needs("sha256sum", "b2sum")
@pytest.mark.parametrize(
    "tool", [("sha256sum",), ("sha512sum",), ("md5sum", "-b"), ("sha1sum", "--tag"), ("b2sum", "--tag")]
)
def test_the_lines_of_the_real_programs_are_read(tool: tuple[str, ...], tmp_path: Path) -> None:
    """Whatever a file is called, its line names it."""
    folder = os.fsencode(tmp_path)
    paths = [folder + b"/" + name for name in NAMES]
    for path in paths:
        Path(os.fsdecode(path)).write_bytes(path)
    written = subprocess.run([*tool, "--", *paths], capture_output=True, check=True, timeout=30).stdout
    expected = read_manifest(Source("manifest", written))
    assert [each.path for each in expected] == paths
    algorithm = {"b2sum": "blake2b"}.get(tool[0], tool[0].removesuffix("sum"))
    assert [(each.algorithm, each.digest) for each in expected] == [
        (algorithm, hashlib.new(algorithm, path).hexdigest()) for path in paths
    ]


FORM = "expected HEX  PATH, as sha256sum writes it, or SHA256 (PATH) = HEX"
KNOWN = "md5 has 32, sha1 has 40, sha256 has 64, sha512 has 128"
NO_PATH = "there is no path; give sha256sum the name of the file, not its contents"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"/a", FORM),
        (HEX, FORM),
        (HEX + b"\t/a", FORM),
        (b"  " + HEX + b"  /a", FORM),
        (b"SHA256 (/a) " + HEX, FORM),
        (HEX + b"  ", NO_PATH),
        (HEX + b"  -", NO_PATH),
        (b"SHA256 () = " + HEX, NO_PATH),
        (
            b"abc  /a",
            f"no algorithm of the servers has 3 hex digits: {KNOWN}",
        ),
        (
            b"SHA384 (/a) = " + HEX,
            "no algorithm SHA384; the servers know sha1, md5, sha256, sha512, sha3_256, blake2b",
        ),
        (b"BLAKE2b (/a) = " + HEX, "blake2b has 128 hex digits, not 64; write it anew"),
        (
            HEX + b"   /a",
            "a path with blanks at its ends cannot be asked for; take it out or rename the file",
        ),
        (
            HEX + b"  /a\t",
            "a path with blanks at its ends cannot be asked for; take it out or rename the file",
        ),
        (
            b"\\" + HEX + rb"  /a\nb",
            "a path with control characters cannot be asked for; take it out or rename the file",
        ),
        (
            HEX + b"  /a\x1bb",
            "a path with control characters cannot be asked for; take it out or rename the file",
        ),
        (
            b"\\" + HEX + rb"  /a\tb",
            r"expected \\, \n or \r behind the backslash at the beginning; write it anew",
        ),
        (
            b"\\" + HEX + b"  /a\\",
            r"expected \\, \n or \r behind the backslash at the beginning; write it anew",
        ),
    ],
)
def test_what_cannot_be_asked_is_told_with_what_to_do(line: bytes, complaint: str) -> None:
    """A file that would not be checked is said before all others are called good."""
    assert complaint_of(line) == complaint


def test_a_manifest_has_a_file_in_each_line() -> None:
    """Comments, empty lines and the line ends of Windows are for people and their editors."""
    data = b"# binaries\r\n" + HEX + b"  /a\r\n\n" + HEX + b"  /b"
    assert read_manifest(Source("manifest", data)) == (file(b"/a"), file(b"/b"))


def test_a_fault_is_told_with_its_line() -> None:
    """Of five hundred lines the one to mend is named."""
    with pytest.raises(ValueError, match=r"\Amanifest:2: expected HEX  PATH, "):
        read_manifest(Source("manifest", HEX + b"  /a\nsha256sum: /b: Permission denied\n"))


@pytest.mark.parametrize("data", [b"", b"\n# nothing\n"])
def test_an_empty_manifest_is_refused(data: bytes) -> None:
    """Nothing checked is not all good."""
    with pytest.raises(ValueError, match=r"\Amanifest: no file in it; write it with sha256sum FILE ...\Z"):
        read_manifest(Source("manifest", data))


PIECES = [
    HEX,
    b"\\",
    b"\\n",
    b" ",
    b"  ",
    b"*",
    b"(",
    b") = ",
    b"SHA256",
    b"/a",
    b"-",
    b"\r",
    b"\0",
    b"\xff",
    b"\n",
]


@given(st.binary() | st.lists(st.sampled_from(PIECES)).map(b"".join))
def test_any_manifest_gives_questions_or_one_line(data: bytes) -> None:
    """What is read can be asked as it is; what cannot is told, never asked as something else."""
    try:
        expected = read_manifest(Source("manifest", data))
    except ValueError as error:
        complaint = str(error)
        assert complaint == escape(complaint)
        return
    for each in expected:
        request = parse_request(each.command)
        assert request is not None
        assert request.argument == f"{each.algorithm}:{each.digest} ".encode() + each.path
