"""What a test has a bad host say: objects as our servers spell them, and whatever else."""

import json
import socket

from bad_hosts import Behaviour, stay_silent


def saying(data: bytes) -> Behaviour:
    """Wait for the first words, whatever they are, say something, and hear the rest."""

    def script(client: socket.socket) -> None:
        client.recv(1 << 16)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        stay_silent(client)

    return script


def greet(client: socket.socket) -> None:
    """Agree on JSON as a server of ours does."""
    assert client.recv(1 << 16) == b"format json\r\n"
    client.sendall(answer(1, format="json"))


def answer(number: int, **result: object) -> bytes:
    """Spell an answer."""
    return spell(id=number, command="any", ok=True, result=result, seconds=0.0)


def spell(**values: object) -> bytes:
    """Spell an object on a line."""
    return json.dumps(values).encode() + b"\n"
