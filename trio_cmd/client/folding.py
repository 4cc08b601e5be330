"""Names of hosts become few words: ``web01``, ``web02`` and ``web03`` are ``web[01-03]``.

What leaves can be given to ``ask`` again.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise

__all__ = ["fold_names"]

_NUMBER = re.compile(r"(?<![0-9])([0-9]{1,9})(?![0-9])")  # a range has no longer ones
# Brackets have a meaning of their own, a path may hold anything, and an IPv6 address has digits that
# are not decimal.
_NOT_FOLDED = re.compile(r"[\[\],]|^unix:|:.*:")

# A name, cut before and behind each of its numbers: text stands at even places, numbers at odd ones.
_Parts = tuple[str, ...]


def fold_names(names: Iterable[str]) -> Sequence[str]:
    """Fold names that differ in one number only; those of a kind stand where the first of them stood."""
    kinds: dict[_Parts, list[_Parts]] = {}
    for name in dict.fromkeys(names):
        parts = (name,) if _NOT_FOLDED.search(name) else tuple(_NUMBER.split(name))
        kinds.setdefault(parts[::2], []).append(parts)
    return [word for kind in kinds.values() for word in _fold_kind(kind)]


def _fold_kind(names: Sequence[_Parts]) -> Iterator[str]:
    """Fold names with the same texts, at the number where fewest words are left."""
    places = range(len(names[0]) - 2, 0, -2)  # the last one first: a host's own number, or its port
    if len(names) == 1 or not places:
        return iter("".join(parts) for parts in names)
    return _fold_at(names, min(places, key=lambda place: len({_without(parts, place) for parts in names})))


def _without(parts: _Parts, place: int) -> _Parts:
    return parts[:place] + parts[place + 1 :]


def _fold_at(names: Sequence[_Parts], place: int) -> Iterator[str]:
    alike: dict[_Parts, list[str]] = {}
    for parts in names:
        alike.setdefault(_without(parts, place), []).append(parts[place])
    for rest, numbers in alike.items():
        yield "".join(rest[:place]) + _fold_numbers(numbers) + "".join(rest[place:])


def _fold_numbers(numbers: Sequence[str]) -> str:
    """Write numbers as ``[01-03,7]``, and one alone as it is."""
    if len(numbers) == 1:
        return numbers[0]
    ordered = sorted(numbers, key=lambda text: (len(text), text))  # 9 before 10, and 010 behind both
    runs = [list(run) for run in _runs(ordered)]
    return "[" + ",".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs) + "]"


def _runs(ordered: Sequence[str]) -> Iterator[Iterable[str]]:
    """Cut numbers where one is missing, or where they are not written with as many digits."""
    steps = [0]
    for before, number in pairwise(ordered):
        follows = number == str(int(before) + 1).zfill(len(before))
        steps.append(steps[-1] + (not follows))
    for _, run in groupby(zip(steps, ordered, strict=True), key=lambda pair: pair[0]):
        yield (number for _, number in run)
