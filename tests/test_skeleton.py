"""The main job at its smallest: one netcat, one record, one signal."""

import subprocess

import pytest

from conftest import StartProgram


@pytest.mark.needs("nc.openbsd")
def test_netcat_gets_its_answers_in_order(start: StartProgram) -> None:
    """An operator with nothing but netcat gets answers."""
    program = start()
    asked = b"test\ncomphash /dev/null\nping\n"
    done = subprocess.run(
        ["nc.openbsd", "-N", "127.0.0.1", str(program.port)], input=asked, capture_output=True, timeout=30
    )
    assert done.stdout == b"Command not found.\nAn error occured : not a regular file: '/dev/null'\npong\n"
    assert program.wait_for("command-received", request=1)["command"] == "test"
    assert program.stop() == 0
    assert program.rest()[-1]["action"] == "stopped"
