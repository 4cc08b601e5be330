"""A manifest on many real servers, against the tool of the host run on each.

What the sizes of the issue take too long for in CI runs with ``TRIO_CMD_FULL=1``.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import StartProgram
from program import PATIENCE_SECONDS, Program

FULL = os.environ.get("TRIO_CMD_FULL") == "1"
FILES = 500 if FULL else 50
SERVERS = 20 if FULL else 4
DIFFERENT = max(2, SERVERS // 4)  # of the servers


def make_files(folder: Path) -> None:
    """Write files of all kinds of names; the largest are of several pieces."""
    chance = random.Random(6)
    (folder / "bin").mkdir(parents=True)
    for number in range(FILES):
        name = (b"plain%d", b"with blank %d", b"n\xc3\xa9 %d", b"back\\slash%d", b"\xff%d")[
            number % 5
        ] % number
        size = int(600_000 ** chance.random())
        Path(os.fsdecode(os.path.join(os.fsencode(folder), b"bin", name))).write_bytes(chance.randbytes(size))


def spoil(folder: Path, number: int) -> None:
    """Change and remove files of one host, some of them the same on all that are different."""
    chance = random.Random(number)
    files = sorted((folder / "bin").iterdir())
    plain = [file for file in files if file.name.startswith(("plain", "with"))]
    plain[0].write_bytes(b"drifted")
    plain[1].unlink()
    for file in chance.sample(plain[2:], FILES // 10):
        if chance.random() < 0.5:
            file.unlink()
        else:
            file.write_bytes(file.read_bytes() + b"\n")


def check_by_tool(folder: Path, manifest: Path) -> list[str]:
    """Give the lines of ``sha256sum -c`` about what does not match."""
    run = subprocess.run(
        ["sha256sum", "--quiet", "-c", manifest], cwd=folder, capture_output=True, check=False, text=True
    )
    return run.stdout.splitlines()


def ask(manifest: Path, *arguments: str) -> tuple[int, list[str]]:
    command = [sys.executable, "-m", "trio_cmd", "ask", "--manifest", str(manifest), *arguments]
    run = subprocess.run(command, capture_output=True, check=False, text=True, timeout=2 * PATIENCE_SECONDS)
    assert run.stderr == ""
    return run.returncode, run.stdout.splitlines()


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """A folder of each server; those of the last ones are different."""
    first = tmp_path / "0"
    make_files(first)
    folders = [first, *(tmp_path / str(number) for number in range(1, SERVERS))]
    for number, folder in enumerate(folders[1:], 1):
        shutil.copytree(first, folder)
        if number >= SERVERS - DIFFERENT:
            spoil(folder, number)
    return folders


@pytest.fixture
def manifest(folders: list[Path], tmp_path: Path) -> Path:
    """What ``sha256sum`` writes of the first folder."""
    path = tmp_path / "manifest"
    names = sorted(os.listdir(b"%b/bin" % os.fsencode(folders[0])))
    with path.open("wb") as file:
        subprocess.run(["sha256sum", *(b"bin/" + n for n in names)], cwd=folders[0], stdout=file, check=True)
    return path


@pytest.mark.proof
@pytest.mark.needs("sha256sum")
def test_a_manifest_says_of_many_hosts_what_sha256sum_says_of_each(
    start: StartProgram, folders: list[Path], manifest: Path
) -> None:
    """One question finds the drifted files of a fleet, and no others."""
    programs: list[Program] = [start(cwd=folder) for folder in folders]
    names = [f"127.0.0.1:{program.port}" for program in programs]
    expected = {name: check_by_tool(folder, manifest) for name, folder in zip(names, folders, strict=True)}
    differing = sum(line.endswith("FAILED") for lines in expected.values() for line in lines)
    missing = sum(line.endswith("open or read") for lines in expected.values() for line in lines)
    assert differing > DIFFERENT < missing
    good = FILES * SERVERS - differing - missing
    summary = (
        f"{FILES * SERVERS} files checked on {SERVERS} hosts: "
        f"{good} OK, {differing} FAILED, {missing} FAILED open or read"
    )

    code, lines = ask(manifest, *names, "--output", "text")
    assert code == 1
    assert lines.pop() == summary
    for name in names:
        mine = [line.removeprefix(f"{name}: ") for line in lines if line.startswith(f"{name}: ")]
        assert [line.split(": [Errno 2] No such file")[0] for line in mine] == expected[name]

    code, lines = ask(manifest, *names, "--output", "groups")
    assert code == 1
    assert lines[0].startswith(f"{SERVERS - DIFFERENT} hosts: ")
    assert lines[1] == f"  {FILES} files OK"
    assert sum(line.startswith("1 host: ") for line in lines) == DIFFERENT
    assert lines[-1] == summary

    code, lines = ask(manifest, *names, "--output", "json")
    assert code == 1
    answers = [json.loads(line) for line in lines]
    assert len(answers) == FILES * SERVERS
    assert sum(answer["ok"] and answer["result"]["matches"] for answer in answers) == good
    assert sum(not answer["ok"] for answer in answers) == missing

    code, lines = ask(manifest, *names[: SERVERS - DIFFERENT])
    assert code == 0
    good = FILES * (SERVERS - DIFFERENT)
    assert lines == [f"{good} files checked on {SERVERS - DIFFERENT} hosts: {good} OK"]
