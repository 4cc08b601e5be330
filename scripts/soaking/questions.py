"""What can be asked in a place, with each right answer; and what an answer is compared with."""

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from soaking.place import ALGORITHMS, BIG_LINES, WORDS, Place

__all__ = ["Answer", "Question", "ask_ping", "ask_something", "find_answer"]

PREFIX = "An error occured : "
BUSY = (
    "too much work is waiting already; try again later",
    "too many answers wait for their readers; try again later",
)
UNKNOWN = "Command not found."
CONTROL = "control characters in the line; send text, blanks and tabs only"
MAX_LINES = 10_000


@dataclass(frozen=True, slots=True)
class Answer:
    """One that is right.

    Attributes:
        lines: of the text form.
        result: of the JSON form; its ``lines`` are those between the first and the last of the text.
        code: of the error, if it is one.
        message: of the error.
    """

    lines: tuple[str, ...] = ()
    result: Mapping[str, Any] | None = None
    code: str | None = None
    message: str = ""

    def is_text(self, lines: Sequence[str]) -> bool:
        """Tell whether this was answered."""
        return tuple(lines) == self.lines

    def is_json(self, answer: Mapping[str, Any]) -> bool:
        """Tell whether this was answered, as an object."""
        error = {"code": self.code, "message": self.message} if self.code else None
        is_ok = answer.get("ok") is (self.code is None)
        return is_ok and answer.get("result") == self.result and answer.get("error") == error


@dataclass(frozen=True, slots=True)
class Question:
    """A line, and what it may be answered with.

    Attributes:
        line: as sent, without its ending.
        answers: the right ones, of which one comes.
        mark: what is found in the record when it was answered; or nothing.
    """

    line: bytes
    answers: tuple[Answer, ...]
    mark: str = ""


def find_answer(question: Question, got: Sequence[str] | Mapping[str, Any]) -> Answer | None:
    """Find the right answer that came; ``None``: it is a wrong one."""
    for answer in question.answers:
        if answer.is_json(got) if isinstance(got, Mapping) else answer.is_text(got):
            return answer
    return None


def failure(code: str, message: str, prefix: str = PREFIX) -> Answer:
    """Make the answer that is an error."""
    return Answer((prefix + message,), None, code, message)


ANY_BUSY = tuple(failure("busy", message) for message in BUSY)


def block(name: str, lines: Sequence[str], result: Mapping[str, Any]) -> Answer:
    """Make the answer that is a block."""
    return Answer((f"Begin {name}", *lines, f"End {name}"), {"lines": list(lines), **result})


def ask_ping(mark: str) -> Question:
    """Ask what is found in the record afterwards."""
    return Question(f"ping {mark}".encode(), (Answer(("pong",), {"pong": True}),), mark)


def ask_comphash(place: Place, rng: random.Random, path: bytes | None = None) -> Question:
    """Ask for a digest; where no algorithm is named that of either settings is right."""
    path = path or rng.choice(place.small)
    named = rng.choice(ALGORITHMS) if rng.random() < 0.5 else ""
    answers = [_digest(place, path, algorithm) for algorithm in ([named] if named else ["sha1", "sha256"])]
    line = b"comphash " + (named.encode() + b" " if named else b"") + path
    return Question(line, (*answers, *ANY_BUSY))


def _digest(place: Place, path: bytes, algorithm: str) -> Answer:
    digest = place.digests[path][algorithm]
    result = {"path": os.fsdecode(path), "algorithm": algorithm, "digest": digest, "bytes": place.sizes[path]}
    return Answer((f"File hash is : {digest}",), result)


def ask_verify(place: Place, rng: random.Random) -> Question:
    """Compare a file with its digest, or with that of another."""
    path, other = rng.choice(place.small), rng.choice(place.small)
    named, digest = place.digests[other]["md5"], place.digests[path]["md5"]
    said = "File hash matches." if named == digest else f"File hash differs : {digest}"
    result = {"path": os.fsdecode(path), "algorithm": "md5", "digest": digest, "bytes": place.sizes[path]}
    right = Answer((said,), {**result, "matches": named == digest})
    return Question(b"verify md5:" + named.encode() + b" " + path, (right, *ANY_BUSY))


def ask_bad_path(place: Place, rng: random.Random) -> Question:
    """Ask for what is no file, or not below the root."""
    files = place.folder / "files"
    outside = f"; ask below '{files}'"
    path, code, message = rng.choice(
        (
            (f"{files}/nope", "not-found", f"[Errno 2] No such file or directory: '{files}/nope'"),
            (f"{files}/fifo", "not-a-regular-file", f"not a regular file: '{files}/fifo'"),
            (f"{files}/folder", "not-a-regular-file", f"not a regular file: '{files}/folder'"),
            (f"{files}/away", "outside-roots", f"outside the roots: '{files}/away'{outside}"),
            ("/etc/shadow", "outside-roots", f"outside the roots: '/etc/shadow'{outside}"),
        )
    )
    return Question(f"comphash {path}".encode(), (failure(code, message), *ANY_BUSY))


def ask_lastlog(place: Place, rng: random.Random) -> Question:
    """Ask for lines of the log that does not change."""
    count = rng.randint(1, 250)
    result = {"log": "steady", "truncated": False}
    right = block("lastlog", place.steady()[-count:], result)
    return Question(f"lastlog {count} steady".encode(), (right, *ANY_BUSY))


def ask_big_lastlog(place: Place) -> Question:
    """Ask for more than one answer holds: the newest lines that fit into 1 MiB come."""
    lines = place.big()
    size, kept = 0, 0
    while kept < BIG_LINES and size + len(lines[-kept - 1]) + 1 <= 1 << 20:
        size += len(lines[-kept - 1]) + 1
        kept += 1
    shown = [f"{BIG_LINES - kept} lines skipped", *lines[-kept:]]
    right = Answer(("Begin lastlog", *shown, "End lastlog"))
    return Question(f"lastlog {MAX_LINES} big".encode(), (right, *ANY_BUSY))


def ask_program(rng: random.Random) -> Question:
    """Run a program: one that works, one that fails, one that leaves others behind."""
    word = rng.choice(WORDS)
    ended = {"exit_status": 0, "truncated": False}
    before = {"lines": ["before"], "exit_status": 3, "truncated": False}
    failed = "fail exited with status 3"
    lines = ("Begin fail", "before", PREFIX + failed, "End fail")
    line, right = rng.choice(
        (
            (f"say {word}", block("say", [f"said {word}"], ended)),
            ("fail", Answer(lines, before, "program-failed", failed)),
            ("stay", block("stay", ["gone"], ended)),
        )
    )
    return Question(line.encode(), (right, *ANY_BUSY))


def ask_extra() -> Question:
    """Run a program that is in some of the settings."""
    right = block("extra", ["extra"], {"exit_status": 0, "truncated": False})
    return Question(b"extra", (right, failure("unknown-command", UNKNOWN, ""), *ANY_BUSY))


def ask_mistaken(rng: random.Random) -> Question:
    """Make an error of form."""
    line, code, message, prefix = rng.choice(
        (
            (b"nope", "unknown-command", UNKNOWN, ""),
            (b"pi\x01ng", "bad-encoding", CONTROL, PREFIX),
            (b"comphash", "bad-arguments", "Please provide a path.", ""),
            (b"format xml", "bad-arguments", "usage: format text|json", PREFIX),
            (b"say UPPER", "bad-arguments", "expected WORD as [a-z0-9-]{1,32}: say WORD", PREFIX),
        )
    )
    return Question(line, (failure(code, message, prefix),))


def ask_something(place: Place, rng: random.Random, mark: str) -> Question:
    """Ask anything that has one answer in any settings."""
    kind = rng.choices(
        ("ping", "comphash", "verify", "path", "lastlog", "program", "extra", "mistake"),
        (8, 5, 2, 2, 3, 2, 1, 1),
    )[0]
    match kind:
        case "ping":
            return ask_ping(mark)
        case "comphash":
            return ask_comphash(place, rng)
        case "verify":
            return ask_verify(place, rng)
        case "path":
            return ask_bad_path(place, rng)
        case "lastlog":
            return ask_lastlog(place, rng)
        case "program":
            return ask_program(rng)
        case "extra":
            return ask_extra()
        case _:
            return ask_mistaken(rng)
