"""Files that say what to ask."""

import os
import threading
from pathlib import Path

import pytest

from trio_cmd.client import sources
from trio_cmd.client.sources import Source, read_source


def complaint_of(path: str) -> str:
    with pytest.raises(ValueError, match=r"\A.+\Z") as caught:
        read_source(path)
    return str(caught.value)


def test_a_file_is_read_with_the_places_of_its_lines(tmp_path: Path) -> None:
    """What is wrong in a line can be found; blanks are those of the line."""
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfone\r\n two\x0b \n\nlast")
    source = read_source(str(path))
    assert [*source.lines()] == [
        (f"{path}:1", b"one"),
        (f"{path}:2", b" two\x0b "),
        (f"{path}:3", b""),
        (f"{path}:4", b"last"),
    ]


def test_what_another_program_prints_is_read(tmp_path: Path) -> None:
    """A shell gives a program's output as a pipe."""
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: Path(path).write_bytes(b"web1\n"))
    writer.start()
    assert read_source(path) == Source(path, b"web1\n")
    writer.join()


def test_a_name_cannot_change_the_terminal(tmp_path: Path) -> None:
    """It stands before each complaint of a line."""
    path = tmp_path / "\x1b[2J"
    path.write_bytes(b"")
    assert read_source(str(path)).name == rf"{tmp_path}/\x1b[2J"


def test_a_file_that_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    """Whatever was named."""
    assert complaint_of(f"{tmp_path}/no\n") == (
        rf"'{tmp_path}/no\x0a': No such file or directory; name a file that can be read"
    )
    assert complaint_of(str(tmp_path)) == f"'{tmp_path}': Is a directory; name a file that can be read"
    assert complaint_of("") == "'': No such file or directory; name a file that can be read"


def test_a_file_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong file, or a device without end, does not fill the memory."""
    assert complaint_of("/dev/zero") == "/dev/zero: longer than 16 MiB; ask in several turns"
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 3)
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert read_source(str(path)).data == b"abc"
