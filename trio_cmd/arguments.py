"""What the settings say of a program's arguments and what a client typed enter, an argv leaves.

There is no shell, no format language and no list of forbidden characters: an element of argv is
text of the settings with places in it, and what goes into a place is made of characters, or is
one of the words, that the settings name.
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from trio_cmd.errors import BadArguments
from trio_cmd.escape import escape

__all__ = ["ARGUMENT_NAME", "ArgvTemplate", "Pattern", "check_argv", "check_pattern"]

# Long enough for a host name or a unit, too short to be a program of its own.
MAX_ARGUMENT_BYTES = 128
ARGUMENT_NAME = re.compile(r"[a-z][a-z0-9_]*")

Pattern = str | Sequence[str]
"""One character class with a quantifier, or the words there are to choose from."""

_PLACES = re.compile(r"\{\{([a-z][a-z0-9_]*)\}\}|\{([a-z][a-z0-9_]*)\}")
# A class ends at its first bracket that no backslash precedes; nothing may follow but its quantifier.
_CLASS = re.compile(r"\[(?:\\.|[^\]\\])+\](?:\+|\{[0-9]{1,3},[0-9]{1,3}\})", re.DOTALL)
_WORD = re.compile(rf"[!-~]{{1,{MAX_ARGUMENT_BYTES}}}")


class Part(NamedTuple):
    """A piece of an argv element: text of the settings, or the place of an argument by its name."""

    text: str
    is_place: bool


class ArgvTemplate:
    """The argv of one program, with the places that a client's argument fills.

    Args:
        name: of the program, for what a client is told.
        argv: checked by ``check_argv``.
        arguments: name -> checked pattern, in the order in which a client gives them.
    """

    def __init__(self, name: str, argv: Sequence[str], arguments: Mapping[str, Pattern]) -> None:
        self.usage = " ".join([name, *map(str.upper, arguments)])
        self._elements = [split_element(text) for text in argv]
        self._arguments = arguments

    def fill(self, argument: bytes) -> list[bytes]:
        """Make the argv for what a client typed behind the program's name.

        Raises:
            BadArguments: there are too few or too many words, or one is not of its form.
        """
        texts = argument.split(None, max(0, len(self._arguments) - 1))
        if len(texts) != len(self._arguments):
            raise BadArguments(f"usage: {self.usage}")
        given = {
            name: self._take(name, pattern, text)
            for (name, pattern), text in zip(self._arguments.items(), texts, strict=True)
        }
        return [self._finish(parts, given) for parts in self._elements]

    def _take(self, name: str, pattern: Pattern, text: bytes) -> str:
        if len(text) > MAX_ARGUMENT_BYTES:
            raise BadArguments(f"{name.upper()} is longer than {MAX_ARGUMENT_BYTES} bytes: {self.usage}")
        if not text.isascii() or not _matches(pattern, text.decode("ascii")):
            raise BadArguments(f"expected {name.upper()} as {_describe(pattern)}: {self.usage}")
        return text.decode("ascii")

    def _finish(self, parts: Sequence[Part], given: Mapping[str, str]) -> bytes:
        """Put the arguments in their places; none may become an option that the settings do not write."""
        text = "".join(given[part.text] if part.is_place else part.text for part in parts)
        if text.startswith("-") and parts[0].is_place:
            raise BadArguments(f"{parts[0].text.upper()} must not begin with a dash: {self.usage}")
        return text.encode()


def split_element(text: str) -> tuple[Part, ...]:
    """Tell the text of an argv element from its places.

    ``{name}`` is a place, ``{{name}}`` the text ``{name}``; other braces stand for themselves.
    """
    return tuple(part for part in _parts(text) if part.text)


def _parts(text: str) -> Iterator[Part]:
    start = 0
    for match in _PLACES.finditer(text):
        yield Part(text[start : match.start()], is_place=False)
        yield Part(match[2], is_place=True) if match[2] else Part(f"{{{match[1]}}}", is_place=False)
        start = match.end()
    yield Part(text[start:], is_place=False)


def check_argv(argv: Sequence[str], arguments: Mapping[str, object]) -> None:
    """Check that places and arguments belong together.

    Raises:
        ValueError: what is wrong, in one line.
    """
    places = [part.text for part in chain(*map(split_element, argv)) if part.is_place]
    if any(part.is_place for part in split_element(argv[0])):
        raise ValueError("the program itself cannot be an argument")
    for name in places:
        if name not in arguments:
            raise ValueError(f"{{{name}}} has no pattern under arguments; the text is written {{{{{name}}}}}")
    for name in arguments:
        if name not in places:
            raise ValueError(f"expected {{{escape(name)}}} for the argument of this name")


def check_pattern(pattern: object) -> None:
    """Check the pattern of an argument.

    Raises:
        ValueError: what was expected instead.
    """
    is_pattern = _is_class(pattern) if isinstance(pattern, str) else _is_choice(pattern)
    if not is_pattern:
        raise ValueError("expected one character class with + or {m,n}, or a list of words")


def _is_choice(pattern: object) -> bool:
    if not isinstance(pattern, list | tuple) or not pattern:
        return False
    return all(isinstance(word, str) and _WORD.fullmatch(word) is not None for word in pattern)


def _is_class(pattern: str) -> bool:
    if _CLASS.fullmatch(pattern) is None:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what another Python may read as a set of sets is no class
            re.compile(pattern)
    except (re.error, Warning):
        return False
    return True


def _matches(pattern: Pattern, text: str) -> bool:
    if isinstance(pattern, str):
        return re.fullmatch(pattern, text) is not None
    return text in pattern


def _describe(pattern: Pattern) -> str:
    return escape(pattern) if isinstance(pattern, str) else "one of " + ", ".join(pattern)
