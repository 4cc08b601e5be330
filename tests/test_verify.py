"""``verify``: whether a file still has the digest it should have."""

import hashlib
import json
from pathlib import Path

import pytest
from test_comphash import ask, fault, make_file, text_of

from trio_cmd.errors import BadArguments, NotFound, PathMissing
from trio_cmd.settings import ALGORITHMS
from trio_cmd.wire.messages import format_reply


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_right_and_wrong_digests_are_told_apart(algorithm: str, tmp_path: Path) -> None:
    """The answer is one word to look at, and the true digest when it differs."""
    path = make_file(tmp_path, b"a file")
    digest = hashlib.new(algorithm, b"lab\n").hexdigest()
    for given in (digest, digest.upper()):
        right = await ask(f"verify {algorithm}:{given} ".encode() + path)
        assert text_of(right) == "File hash matches.\n"
    wrong = await ask(f"verify {algorithm}:{'0' * len(digest)} \t ".encode() + path)
    assert text_of(wrong) == f"File hash differs : {digest}\n"


@pytest.mark.parametrize("matches", [True, False])
async def test_verdict_in_json_and_in_the_record(tmp_path: Path, *, matches: bool) -> None:
    """A digest that differs is an answer, not an error; the auditor finds it in the record."""
    path = make_file(tmp_path, b"hostname")
    digest = hashlib.sha1(b"lab\n").hexdigest()
    given = digest if matches else "f" * 40
    reply = await ask(f"verify sha1:{given} ".encode() + path)
    facts = {"path": path.decode(), "algorithm": "sha1", "digest": digest, "matches": matches}
    assert json.loads(format_reply(reply, "json", 7, b"verify", 0.25)) == {
        "id": 7,
        "command": "verify",
        "ok": True,
        "result": {**facts, "bytes": 4},
        "seconds": 0.25,
    }
    assert reply.record == {**facts, "size": 4}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (b"", "usage: verify ALGORITHM:HEX PATH"),
        (b"/etc/hostname", "usage: verify ALGORITHM:HEX PATH"),
        (b"sha1 /etc/hostname", "usage: verify ALGORITHM:HEX PATH"),
        (b"sha1:%b1 /x" % (b"a" * 40), "expected 40 hex digits behind sha1: but found 41"),
        (b"sha1:%b /x" % (b"a" * 39), "expected 40 hex digits behind sha1: but found 39"),
        (b"sha1: /x", "expected 40 hex digits behind sha1: but found 0"),
        (b"md5:%b /x" % (b"a" * 40), "expected 32 hex digits behind md5: but found 40"),
        (b"sha512:%b /x" % (b"a" * 64), "expected 128 hex digits behind sha512: but found 64"),
        (b"sha1:%bg /x" % (b"a" * 39), "expected hex digits behind sha1:"),
        (b"sha1:\xff /x", "expected hex digits behind sha1:"),
        (b"SHA1:%b /x" % (b"a" * 40), f"no algorithm 'SHA1'; the algorithms are: {' '.join(ALGORITHMS)}"),
        (b":a /x", f"no algorithm ''; the algorithms are: {' '.join(ALGORITHMS)}"),
    ],
)
async def test_what_is_no_digest_is_told_with_what_was_expected(argument: bytes, message: str) -> None:
    """A digest that lost a digit when it was copied must not look like a changed file."""
    error = await fault(b"verify " + argument)
    assert isinstance(error, BadArguments)
    assert error.message == message


async def test_missing_path_and_missing_file_are_told_as_by_comphash() -> None:
    """Both commands read files in the same way."""
    assert isinstance(await fault(b"verify sha1:" + b"a" * 40), PathMissing)
    assert isinstance(await fault(b"verify sha1:" + b"a" * 40 + b" /nope"), NotFound)
