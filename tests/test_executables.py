"""A program is offered only where nobody but its owner and root can put another in its place."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trio_cmd.executables import check_executable


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program in a folder that only its owner may write."""
    folder = tmp_path / "bin"
    folder.mkdir(0o755)
    path = folder / "program"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def fault(path: str) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        check_executable(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_programs_of_the_system_can_be_offered(program: Path) -> None:
    """What the distribution installed, also behind its symbolic links, needs no preparation."""
    for path in ("/bin/sh", "/usr/bin/env", str(program)):
        check_executable(path)


@pytest.mark.parametrize("path", ["uptime", "", "./uptime", "bin/uptime", "~/uptime"])
def test_relative_program_is_refused(path: str) -> None:
    """Neither PATH nor the folder the server was started in chooses what is run."""
    assert fault(path) == "expected the absolute path of a program"


def test_missing_program_is_refused(program: Path) -> None:
    """A slip of the pen is told at the start, not to the first client at night."""
    assert fault(f"{program}s") == "no program can be run there: No such file or directory"
    assert fault(f"{program}/x") == "no program can be run there: Not a directory"


@pytest.mark.parametrize("mode", [0o644, 0o400])
def test_file_that_is_not_executable_is_refused(mode: int, program: Path) -> None:
    """A script without its x bit is told at the start."""
    program.chmod(mode)
    assert fault(str(program)) == "expected a program; the file is not executable"


def test_folder_is_no_program(program: Path) -> None:
    """It has an x bit too."""
    assert fault(str(program.parent)) == "expected a program; the file is not executable"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_program_that_others_may_write_is_refused(mode: int, program: Path) -> None:
    """Whoever may write it would choose what clients run as the server's user."""
    program.chmod(mode)
    assert fault(str(program)) == f"others than its owner may write '{program}'; chmod go-w it"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_program_in_a_folder_that_others_may_write_is_refused(mode: int, program: Path) -> None:
    """Whoever may write the folder puts another program there."""
    program.parent.chmod(mode)
    assert fault(str(program)) == f"others than its owner may write '{program.parent}'; chmod go-w it"


def relative(target: Path, link: Path) -> str:
    return os.path.relpath(target, link.parent)


def absolute(target: Path, link: Path) -> str:
    return str(target)


@pytest.mark.parametrize("spell", [relative, absolute])
def test_link_is_looked_at_where_it_is_and_where_it_leads(
    spell: Callable[[Path, Path], str], program: Path, tmp_path: Path
) -> None:
    """A safe link to an unsafe program, or the other way round, is no safe program."""
    links = tmp_path / "links"
    links.mkdir(0o755)
    first, second = links / "first", tmp_path / "second"
    second.symlink_to(spell(program, second))
    first.symlink_to(spell(second, first))
    tmp_path.chmod(0o755)
    check_executable(str(first))
    for folder in (links, tmp_path, program.parent):
        folder.chmod(0o777)
        assert f"may write '{folder}'" in fault(str(first))
        folder.chmod(0o755)


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    """They lead to no program."""
    (tmp_path / "a").symlink_to("a")
    assert fault(str(tmp_path / "a")).startswith("no program can be run there: Too many levels")


def test_what_is_told_is_safe_to_show(program: Path) -> None:
    """A name with control characters does not reach the terminal."""
    path = program.parent / "a\x1bb"
    path.write_text("")
    path.chmod(0o777)
    assert fault(str(path)) == f"others than its owner may write '{program.parent}/a\\x1bb'; chmod go-w it"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("what", ["program", "folder", "folder above"])
def test_what_belongs_to_another_user_is_refused(what: str, program: Path) -> None:
    """Its owner could put another program in its place at any time."""
    path = {"program": program, "folder": program.parent, "folder above": program.parent.parent}[what]
    os.chown(path, 65534, 65534)
    assert fault(str(program)) == f"'{path}' belongs to another user; chown it to root"


def test_a_folder_above_that_others_may_write_is_refused(program: Path) -> None:
    """Who may write there renames the whole folder, and puts another of its name."""
    above = program.parent.parent
    above.chmod(0o777)
    assert fault(str(program)) == f"others than its owner may write '{above}'; chmod go-w it"
    above.chmod(0o1777)
    check_executable(str(program))
    above.chmod(0o700)
