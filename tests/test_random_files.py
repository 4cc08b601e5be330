"""Many files by many clients, against the tool of the host; and what a long hash says meanwhile."""

import json
import os
import random
import subprocess
import threading
from pathlib import Path

import pytest

from conftest import StartProgram
from program import reset

IS_FULL = os.environ.get("TRIO_CMD_FULL") == "1"
FILES = 1000 if IS_FULL else 200
MAX_BYTES = (64 if IS_FULL else 1) << 20
CLIENTS = 8


def make_files(folder: Path) -> list[Path]:
    """Write files of 0 bytes to the greatest size, small ones as often as large ones."""
    chance = random.Random(7)
    block = memoryview(chance.randbytes(MAX_BYTES + 4096))
    sizes = [0, 1, MAX_BYTES, *(int(MAX_BYTES ** chance.random()) for _ in range(FILES - 3))]
    paths = []
    for number, size in enumerate(sizes):
        path = folder / f"{number} of {size}"
        start = chance.randrange(len(block) - size)
        path.write_bytes(block[start : start + size])
        paths.append(path)
    return paths


@pytest.mark.proof
@pytest.mark.needs("sha256sum")
def test_random_files_have_the_digests_of_sha256sum(start: StartProgram, tmp_path: Path) -> None:
    """An honest tool agrees with the one the operator would have used, each time."""
    paths = make_files(tmp_path)
    run = subprocess.run(["sha256sum", "--", *paths], capture_output=True, check=True, text=True)
    expected = [line.split()[0] for line in run.stdout.splitlines()]
    program = start("--root", str(tmp_path))
    assert program.port  # from here on it is known to all threads
    answers: dict[int, list[str]] = {}

    def ask(client: int) -> None:
        mine = paths[client::CLIENTS]
        question = "".join(f"comphash sha256 {path}\n" for path in mine).encode()
        answers[client] = program.ask(question).decode().splitlines()

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in range(CLIENTS):
        assert answers[client] == [f"File hash is : {digest}" for digest in expected[client::CLIENTS]]


def test_a_long_hash_says_each_second_how_far_it_is(start: StartProgram, tmp_path: Path) -> None:
    """A program that waits for a large file can show that something moves."""
    big = tmp_path / "big"
    big.touch()
    os.truncate(big, 64 << 30)
    program = start()
    client = program.connect()
    with client.makefile("rb") as lines:
        client.sendall(b"format json\ncomphash %b\n" % os.fsencode(big))
        assert json.loads(lines.readline())["command"] == "format"
        first, second = (json.loads(lines.readline()) for _ in range(2))
    reset(client)
    for event in (first, second):
        assert (event["id"], event["command"], event["event"]) == (2, "comphash", "progress")
        assert event["total"] == 64 << 30
    assert 0 < first["done"] < second["done"] < 64 << 30
    program.wait_for("command-completed", outcome="gone")
