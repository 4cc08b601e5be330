"""A value as it was written enters, one of its type leaves, or a fault in one line."""

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, get_args

import msgspec

__all__ = ["check_absolute_path", "convert", "nearest", "telling"]

_DIGITS = re.compile("-?[0-9]{1,18}", re.ASCII)

_T = TypeVar("_T")


@contextmanager
def telling(path: str, faults: list[str]) -> Iterator[None]:
    """Tell what is raised inside with the key it is about."""
    try:
        yield
    except ValueError as error:
        faults.append(f"{path}: {error}")


def convert(value: Any, kind: type[_T] | Any, *, is_text: bool = False) -> _T:
    """Convert one value.

    Raises:
        ValueError: what was expected instead.
    """
    try:
        # Digits are the one form of a number as text; a lax conversion would take 1e3 for one as well.
        is_number = is_text and isinstance(value, str) and _DIGITS.fullmatch(value) and kind is not str
        return msgspec.convert(int(value) if is_number else value, kind)
    except msgspec.ValidationError as error:
        choices = get_args(kind) if getattr(kind, "__origin__", None) is Literal else ()
        expected = str(error).replace("`", "").replace("Expected float", "expected number").removesuffix(".0")
        expected = expected.removesuffix(", got str") if is_text else expected
        raise ValueError(
            "expected " + " or ".join(choices) if choices else expected[0].lower() + expected[1:]
        ) from error


def check_absolute_path(path: str) -> None:
    """Let a path mean the same wherever the server is started; an empty one is none.

    Raises:
        ValueError: what was expected.
    """
    if path and (not path.startswith("/") or "\0" in path):
        raise ValueError("expected an absolute path")


def nearest(key: str, known: Iterable[str]) -> str:
    """Name the key that was probably meant."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
