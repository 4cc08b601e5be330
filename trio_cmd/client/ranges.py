"""Ranges in the names of hosts: ``web[01-20].example`` enters, twenty names leave."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence

__all__ = ["expand_ranges", "has_ranges"]

# What stands in brackets that are no IPv6 address.
_BRACKETS = re.compile(r"\[([^\[\]:]*)\]")
_ITEM = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


def has_ranges(text: str) -> bool:
    """Say whether there are brackets for ranges; they may still hold none."""
    return _BRACKETS.search(text) is not None


def expand_ranges(text: str, max_names: int) -> list[str]:
    """Give each name of a text with ranges.

    ``web[01-20]`` is twenty names and keeps its zeros, ``web[1,3,5-7]`` five; several ranges in one
    text multiply, the last one counts fastest.

    Raises:
        ValueError: what brackets hold is no range, or there would be too many names; none is made then.
    """
    # Texts and ranges take turns: the pattern has one group.
    pieces = _BRACKETS.split(text)
    ranges = [[_bounds(item) for item in piece.split(",")] for piece in pieces[1::2]]
    count = math.prod(sum(last - first + 1 for first, last, _ in items) for items in ranges)
    if count > max_names:
        raise ValueError(f"more than {max_names} hosts; ask in several turns")
    numbers = [[number for item in items for number in _count(*item)] for items in ranges]
    return [_join(pieces[::2], chosen) for chosen in itertools.product(*numbers)]


def _bounds(item: str) -> tuple[int, int, int]:
    """Read ``7`` or ``01-20``; returns the first, the last, and how many digits each has at least."""
    match = _ITEM.fullmatch(item)
    if match is None:
        raise ValueError("expected numbers in the brackets, like [01-20] or [1,3,5-7]")
    first, last = match[1], match[2] or match[1]
    if len(first) != len(last) and (_is_padded(first) or _is_padded(last)):
        raise ValueError(f"{item} has zeros at one end; write as many digits at both ends")
    if int(first) > int(last):
        raise ValueError(f"{item} counts down; write {last}-{first}")
    return int(first), int(last), len(first)


def _is_padded(number: str) -> bool:
    return number.startswith("0") and number != "0"


def _count(first: int, last: int, digits: int) -> Iterator[str]:
    return (f"{number:0{digits}}" for number in range(first, last + 1))


def _join(texts: Sequence[str], numbers: Sequence[str]) -> str:
    """Put the numbers between the texts, of which there is one more."""
    return "".join(itertools.chain(*zip(texts, [*numbers, ""], strict=True)))
