"""Files that say what to ask: a path enters, lines with their places leave."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from trio_cmd.escape import escape, quote

__all__ = ["STANDARD_INPUT", "Source", "read_source"]

_Item = TypeVar("_Item")

STANDARD_INPUT = "-"
MAX_FILE_BYTES = 1 << 24  # a manifest of a hundred thousand files
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Source:
    """What a file says.

    Attributes:
        name: of the file, safe to show.
        data: all of it.
    """

    name: str
    data: bytes

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """Give each line, without its ending, behind its place: ``FILE:LINE``, safe to show."""
        data = self.data.removeprefix(_BYTE_ORDER_MARK)
        for number, line in enumerate(data.split(b"\n"), 1):
            yield f"{self.name}:{number}", line.removesuffix(b"\r")

    def read_each(self, parse: Callable[[bytes], Sequence[_Item]], missing: str) -> list[_Item]:
        """Read each line.

        Args:
            parse: gives what a line holds, nothing for one that is for people; may raise ``ValueError``.
            missing: what is said of a file that holds nothing.

        Raises:
            ValueError: what is wrong, with its file and line, or that there is nothing in it.
        """
        items: list[_Item] = []
        for place, line in self.lines():
            try:
                items += parse(line)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None
        if not items:
            raise ValueError(f"{self.name}: {missing}")
        return items


def read_source(path: str) -> Source:
    """Read a file, which may be a pipe, or standard input for ``-``; waits until it ends.

    Raises:
        ValueError: it cannot be read or is too long, in one line.
    """
    name = "standard input" if path == STANDARD_INPUT else escape(path)
    try:
        data = _read(path)
    except OSError as error:
        raise ValueError(f"{quote(path)}: {error.strerror}; name a file that can be read") from None
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{name}: longer than {MAX_FILE_BYTES >> 20} MiB; ask in several turns")
    return Source(name, data)


def _read(path: str) -> bytes:
    """Read one byte more than a file may have, at most."""
    with open(0, "rb", closefd=False) if path == STANDARD_INPUT else open(path, "rb") as file:
        return file.read(MAX_FILE_BYTES + 1)
