"""A thousand clients that say nothing cost little, and leave quickly."""

import socket
import time
from contextlib import ExitStack

import pytest

from conftest import StartProgram
from program import Program, read_all, wait_until

CLIENTS = 1000
MAX_BYTES_EACH = 10 * 1024


def connect_many(program: Program, stack: ExitStack) -> list[socket.socket]:
    """Connect a thousand clients, and wait until all are there."""
    clients = [stack.enter_context(program.connect()) for _ in range(CLIENTS)]
    program.wait_for("client-connected", connection=CLIENTS)
    return clients


@pytest.mark.proof
def test_a_thousand_idle_clients_take_ten_kibibytes_each_and_leave_in_two_seconds(
    start: StartProgram, enough_descriptors: None
) -> None:
    """Forgotten terminals cost next to nothing, and a restart does not wait for them."""
    program = start("--max-clients", "2000")
    assert program.ask(b"ping\n") == b"pong\n"
    before = program.resident_bytes()
    with ExitStack() as stack:
        clients = connect_many(program, stack)
        assert (program.resident_bytes() - before) / CLIENTS <= MAX_BYTES_EACH
        with program.connect() as one:
            one.sendall(b"ping\n")
            assert one.recv(100) == b"pong\n"
        began = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - began < 2
        assert {read_all(client) for client in clients} == {b"Server is stopping. bye !\n"}
    lost = [record for record in program.rest() if record["action"] == "client-lost"]
    assert len(lost) == CLIENTS + 2


@pytest.mark.proof
def test_places_and_descriptors_come_back_when_clients_leave(
    start: StartProgram, enough_descriptors: None
) -> None:
    """A day with many clients leaves no trace but records."""
    program = start("--max-clients", "2000")
    program.ask(b"ping\n")
    descriptors = program.descriptors()
    with ExitStack() as stack:
        connect_many(program, stack)
    wait_until(lambda: program.descriptors() == descriptors, "all connections are closed")
    program.wait_for("client-lost", connection=CLIENTS)
    assert b"clients: 1\n" in program.ask(b"status\n")
