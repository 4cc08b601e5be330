"""The recipes of the manual for checks by ping and pong, with the real programs they are for."""

import re
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import StartProgram
from program import PATIENCE_SECONDS, Program, free_port, read_all, wait_until

MANUAL = Path(__file__).parent.parent / "docs" / "operations.md"
CHECK_TCP = "/usr/lib/nagios/plugins/check_tcp"


def recipe(language: str) -> str:
    """Take the one block of the manual in a language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", MANUAL.read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a daemon in the foreground; it is ended with the test."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def read(url: str) -> str:
    """Get a page, or nothing as long as nobody serves it."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def ended_well(program: Program) -> bool:
    """Whether a check has said what the recipe says, and left as it should."""
    asked = [record["command"] for record in program.actions("command-completed")]
    return asked == ["ping", "exit"] and program.actions("client-lost")[0]["reason"] == "exit"


@pytest.mark.needs(CHECK_TCP)
def test_nagios_sees_that_the_server_is_alive(start: StartProgram) -> None:
    """The line of the manual can be pasted, and it is red when nobody answers."""
    program = start()
    command = recipe("sh").replace("check_tcp", CHECK_TCP, 1)

    def check(port: int) -> subprocess.CompletedProcess[str]:
        line = command.replace("9999", str(port))
        return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=PATIENCE_SECONDS)

    done = check(program.port)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("TCP OK")
    program.wait_for("client-lost")
    assert ended_well(program)
    assert program.stop() == 0
    assert check(program.port).returncode == 2


@pytest.mark.needs("haproxy")
def test_haproxy_sees_that_the_server_is_alive(start: StartProgram, tmp_path: Path) -> None:
    """The lines of the manual can be pasted: clients reach a server that answers."""
    program, port = start(), free_port()
    config = tmp_path / "haproxy.cfg"
    backend = recipe("haproxy").replace(":9999", f":{program.port}")
    config.write_text(
        "defaults\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n"
        f"frontend in\n    mode tcp\n    bind 127.0.0.1:{port}\n    default_backend trio-cmd\n{backend}"
    )
    with running("haproxy", "-db", "-f", str(config)):
        program.wait_for("client-lost", reason="exit")
        assert ended_well(program)
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as client:
            client.sendall(b"ping\nexit\n")
            assert read_all(client) == b"pong\n"


@pytest.mark.needs("prometheus-blackbox-exporter")
def test_blackbox_exporter_sees_that_the_server_is_alive(start: StartProgram, tmp_path: Path) -> None:
    """The module of the manual can be pasted, and it fails when nobody answers."""
    program, port = start(), free_port()
    config = tmp_path / "blackbox.yml"
    config.write_text(recipe("yaml"))
    target = f"127.0.0.1:{program.port}"
    url = f"http://127.0.0.1:{port}"
    command = (f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}")
    with running("prometheus-blackbox-exporter", *command):
        wait_until(lambda: "Healthy" in read(f"{url}/-/healthy"), "the exporter answers")
        probe = f"{url}/probe?module=trio_cmd&target={target}"
        assert "\nprobe_success 1\n" in read(probe)
        program.wait_for("client-lost")
        assert ended_well(program)
        assert program.stop() == 0
        assert "\nprobe_success 0\n" in read(probe)
