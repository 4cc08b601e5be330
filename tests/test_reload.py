"""SIGHUP: the program as a process is given other settings while its clients ask."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from test_tls import connect as connect_tls

from certificates import Certificates
from conftest import StartProgram
from program import PATIENCE_SECONDS, SLACK_SECONDS, Program, Record, read_all, wait_until

EVERYTHING = """
[[grants]]
name = "all"
addresses = ["127.0.0.1"]
commands = ["*"]
"""


class Reloadable:
    """A program, and the settings file it was started with."""

    def __init__(self, start: StartProgram, folder: Path, text: str, *args: str, **options: Any) -> None:
        self.path = folder / "trio-cmd.toml"
        self.write(text)
        self.program: Program = start("--config", str(self.path), *args, **options)
        self._reloads = 0
        assert self.program.port

    def write(self, text: str, mode: int = 0o600) -> None:
        """Put another file in place of the old one, all at once."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.chmod(mode)
        new.replace(self.path)

    def reload(self, text: str | None = None) -> Record:
        """Have it read the settings again; returns the record of what came of it."""
        if text is not None:
            self.write(text)
        self.signal()
        wait_until(lambda: len(self._records()) >= self._reloads, "a reload")
        return self._records()[self._reloads - 1]

    def signal(self) -> None:
        """Tell it to read the settings again."""
        self._reloads += 1
        self.program.process.send_signal(signal.SIGHUP)

    def _records(self) -> list[Record]:
        while not self.program._lines.empty():
            self.program._next_record(time.monotonic() + PATIENCE_SECONDS, "a record")
        return [r for r in self.program.records if r["action"] in ("reloaded", "reload-refused")]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloadable]:
    """One program for most tests: each gives it settings of its own."""
    with ExitStack() as stack:

        def start(*args: str, **options: Any) -> Program:
            return stack.enter_context(Program(*args, **options))

        yield Reloadable(start, tmp_path_factory.mktemp("settings"), "")


@pytest.fixture
def it(running: Reloadable) -> Reloadable:
    """A program that has the defaults in force."""
    assert running.reload("")["action"] == "reloaded"
    return running


def ask(client: socket.socket, line: bytes, end: bytes = b"\n") -> bytes:
    """Ask on a connection that goes on; the answer ends with ``end``."""
    client.sendall(line + b"\n")
    answer = b""
    while not answer.endswith(end):
        piece = client.recv(1 << 16)
        assert piece, answer
        answer += piece
    return answer


def test_good_settings_are_in_force_for_what_is_asked_next(it: Reloadable, tmp_path: Path) -> None:
    """A log, a program, a root and an algorithm are added without anybody being cut off."""
    (tmp_path / "file").write_bytes(b"")
    with it.program.connect() as client:
        assert ask(client, b"uptime") == b"Command not found.\n"
        record = it.reload(f"""
[comphash]
roots = ["{tmp_path}"]
algorithm = "md5"
[logs]
new = {{ file = "{tmp_path}/file" }}
[programs.uptime]
argv = ["/bin/echo", "long"]
""")
        assert record["action"] == "reloaded"
        assert set(record["changed"].split(", ")) == {
            *("logs.new", "programs.uptime"),
            *("comphash.roots", "comphash.algorithm"),
        }
        assert record["restart"] == ""
        assert ask(client, b"uptime", b"End uptime\n") == b"Begin uptime\nlong\nEnd uptime\n"
        assert ask(client, b"lastlog", b"End lastlog\n") == b"Begin lastlog\nEnd lastlog\n"
        empty = b"File hash is : d41d8cd98f00b204e9800998ecf8427e\n"
        assert ask(client, b"comphash %s/file" % os.fsencode(tmp_path)) == empty
        assert ask(client, b"comphash /etc/hostname").startswith(b"An error occured : outside the roots")


def test_bad_settings_keep_the_old_ones_and_their_keys_are_named(it: Reloadable) -> None:
    """All or nothing: one wrong key keeps every other from being taken, and the record names it."""
    it.reload("[programs.old]\nargv = ['/bin/true']\n")
    record = it.reload('[programs.new]\nargv = ["/bin/true"]\n[limits]\nwaiting = "many"\nwait = 5\n')
    assert (record["action"], record["level"]) == ("reload-refused", "warning")
    assert record["reason"] == (
        f"{it.path}: limits.waiting: expected int, got str;"
        f" {it.path}: limits.wait: unknown key; did you mean waiting?"
    )
    rows = it.program.ask(b"help\n")
    assert b"\nold " in rows
    assert b"\nnew " not in rows


def become_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: path.chmod(0o666), "others than its owner may write it"),
        (become_a_fifo, "not a regular file"),
        (lambda path: path.write_text("= 5"), "not TOML"),
        (
            lambda path: path.write_text('[tls]\ncertificate="/x"\nkey="/y"\n'),
            "tls.certificate: '/x': No such",
        ),
        (
            lambda path: path.write_text('[comphash]\nroots=["/nowhere"]\n'),
            "comphash.roots: '/nowhere': No such",
        ),
    ],
)
def test_whatever_is_wrong_with_the_file_the_server_goes_on(
    it: Reloadable, spoil: Callable[[Path], object], fault: str
) -> None:
    """A file that is being edited, or a certificate that has not been copied yet, ends nothing."""
    spoil(it.path)
    record = it.reload()
    assert record["action"] == "reload-refused"
    assert fault in record["reason"]
    assert it.program.ask(b"ping\n") == b"pong\n"


def test_flags_and_variables_keep_winning(start: StartProgram, tmp_path: Path) -> None:
    """What a unit file says is not undone by an edit of the settings file."""
    it = Reloadable(start, tmp_path, "", "--root", "/usr", env={"TRIO_CMD_MAX_CLIENTS": "5"})
    record = it.reload('[server]\nmax_clients = 7\n[comphash]\nroots = ["/etc"]\nalgorithm = "md5"\n')
    assert record["changed"] == "comphash.algorithm"
    assert b"max_clients: 5\n" in it.program.ask(b"status\n")
    assert it.program.ask(b"comphash /etc/hostname\n").endswith(b"ask below '/usr'\n")


def test_listeners_that_changed_are_named_and_stay(it: Reloadable, socket_path: str) -> None:
    """A socket is bound once; whoever changes its address reads that it needs a restart."""
    record = it.reload(
        f'[server]\nhost = "127.0.0.2"\nunix_socket = "{socket_path}"\nmax_clients_per_address = 3\n'
    )
    assert (record["changed"], record["restart"]) == (
        "server.max_clients_per_address",
        "server.host, server.unix_socket",
    )
    assert not os.path.exists(socket_path)
    assert it.program.ask(b"ping\n") == b"pong\n"
    assert it.reload("")["restart"] == ""


def test_settings_that_would_not_start_are_refused(it: Reloadable) -> None:
    """The next restart must not be the moment in which a fault is found."""
    record = it.reload('[server]\nhost = "*"\n')
    assert record["action"] == "reload-refused"
    assert "say which ones: --allow NETWORK" in record["reason"]


def test_fewer_clients_cut_nobody(it: Reloadable) -> None:
    """Whoever is connected goes on; the next is refused aloud."""
    with it.program.connect() as first, it.program.connect() as second:
        assert ask(first, b"ping") == ask(second, b"ping") == b"pong\n"
        it.reload("[server]\nmax_clients = 1\n")
        assert it.program.ask(b"ping\n") == b"Too many connections. bye !\n"
        assert ask(first, b"ping") == ask(second, b"ping") == b"pong\n"


def test_a_follow_that_is_no_longer_granted_ends(it: Reloadable, log_file: Path) -> None:
    """A grant that is taken away takes its running commands with it, and only those."""
    log = f'[logs]\nmain = {{ file = "{log_file}" }}\n'
    it.reload(log + EVERYTHING)
    with it.program.connect() as client, it.program.connect() as other:
        assert ask(client, b"follow") == b"Begin follow\n"
        assert ask(other, b"ping") == b"pong\n"
        assert it.reload(log + EVERYTHING.replace('"*"', '"ping"'))["changed"] == "grants.all"
        refused = b"An error occured : follow is not allowed here\nEnd follow\n"
        assert ask(client, b"", refused) == refused
        assert ask(client, b"ping") == ask(other, b"ping") == b"pong\n"
        wait_until(lambda: not it.program.children(), "the end of the follow")
    it.program.wait_for("command-completed", command="follow", outcome="not-allowed")


def test_a_client_without_a_grant_is_told_and_closed_within_a_second(it: Reloadable) -> None:
    """Whoever is thrown out knows why; whoever has a grant left does not even notice."""
    program = '[programs.sleep]\nargv = ["/bin/sleep", "60"]\n'
    it.reload(program + EVERYTHING)
    with it.program.connect() as client:
        client.sendall(b"ping\nsleep\n")
        assert client.recv(5) == b"pong\n"
        it.program.wait_for("command-received", command="sleep")
        it.write(program + EVERYTHING.replace("127.0.0.1", "10.0.0.0/8"))
        began = time.monotonic()
        it.signal()
        assert read_all(client) == (
            b"An error occured : sleep is not allowed here\nNot allowed from 127.0.0.1. bye !\n"
        )
        assert time.monotonic() - began < 1 + SLACK_SECONDS
    assert it.program.wait_for("client-lost", reason="not-allowed")["level"] == "warning"
    wait_until(lambda: not it.program.children(), "the end of the program")
    assert it.program.ask(b"ping\n") == b"Not allowed from 127.0.0.1. bye !\n"


def test_a_handshake_of_whoever_has_no_grant_left_is_ended(
    it: Reloadable, certificates: Certificates
) -> None:
    """Whoever has not said anything yet is closed within a second like all others."""
    it.reload(EVERYTHING + certificates.settings())
    before = it.program.descriptors()
    with it.program.connect() as client:
        wait_until(lambda: it.program.descriptors() > before, "the handshake")
        began = time.monotonic()
        it.reload(EVERYTHING.replace("127.0.0.1", "10.0.0.0/8") + certificates.settings())
        assert read_all(client) == b""
        assert time.monotonic() - began < 1 + SLACK_SECONDS
    it.program.wait_for("client-lost", tls_error="no longer allowed")


def opened(program: Program, folder: Path) -> int:
    """How many descriptors of a folder it has."""
    links = Path(f"/proc/{program.pid}/fd")
    found = 0
    for link in os.listdir(links):
        try:
            found += os.readlink(links / link) == str(folder)
        except FileNotFoundError:  # closed meanwhile
            continue
    return found


def test_work_in_progress_keeps_its_roots_until_its_end(it: Reloadable, tmp_path: Path) -> None:
    """A hash is finished below the folder it was asked in; then the folder is let go."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "file").write_bytes(b"")
    with open(old / "large", "wb") as file:
        file.truncate(100 << 20)
    one_at_a_time = "[comphash]\nthreads = 1\nroots = "
    it.reload(f'{one_at_a_time}["{old}"]\n')
    with it.program.connect() as client:
        client.sendall(b"comphash sha3_256 %s/large\ncomphash %s/file\n" % ((os.fsencode(old),) * 2))
        it.program.wait_for("command-received", arguments=f"{old}/file")
        assert it.reload(f'{one_at_a_time}["{new}"]\n')["changed"] == "comphash.roots"
        assert opened(it.program, new) == 1
        client.sendall(b"comphash %s/file\nexit\n" % os.fsencode(old))
        first, second, third = read_all(client).splitlines()
        assert first.startswith(b"File hash is : ")
        assert second == b"File hash is : da39a3ee5e6b4b0d3255bfef95601890afd80709"
        assert third.endswith(b"ask below '%s'" % os.fsencode(new))
    wait_until(lambda: opened(it.program, old) == 0, "the old root is let go")


def test_certificates_are_those_of_the_file_for_each_new_client(
    it: Reloadable, tmp_path: Path, certificates: Certificates
) -> None:
    """A certificate is renewed every ninety days, and nobody is cut for it."""
    folder = tmp_path / "tls"
    folder.mkdir()
    renewed = Certificates(folder)
    with it.program.connect() as plain:
        assert ask(plain, b"ping") == b"pong\n"
        assert set(it.reload(certificates.settings())["changed"].split(", ")) == {
            "tls.certificate",
            "tls.key",
        }
        with connect_tls(it.program, certificates.client_context()) as client:
            assert ask(client, b"ping") == b"pong\n"
            assert it.reload(renewed.settings())["action"] == "reloaded"
            with connect_tls(it.program, renewed.client_context()) as other:
                assert ask(other, b"ping") == b"pong\n"
            Path(renewed.server_key).write_text("no key")
            assert "tls.key" in it.reload()["reason"]
            with connect_tls(it.program, renewed.client_context()) as other:
                assert ask(other, b"ping") == b"pong\n"
            it.reload("")
            assert it.program.ask(b"ping\n") == ask(client, b"ping") == ask(plain, b"ping") == b"pong\n"


def test_the_roots_of_the_start_are_let_go_as_well(start: StartProgram, tmp_path: Path) -> None:
    """A disk that is no longer named can be unmounted, also when it was named first."""
    old = tmp_path / "old"
    old.mkdir()
    it = Reloadable(start, tmp_path, f'[comphash]\nroots = ["{old}"]\n')
    assert opened(it.program, old) == 1
    for _ in range(20):
        descriptors = it.program.descriptors()
        assert it.reload(f'[comphash]\nroots = ["{tmp_path}"]\n')["action"] == "reloaded"
    assert opened(it.program, old) == 0
    assert it.program.descriptors() <= descriptors + 1  # one may be open in this moment


def test_status_says_what_is_in_force_and_how_the_last_reload_went(it: Reloadable) -> None:
    """Monitoring sees that a change has been taken, or has been refused since."""

    def status() -> dict[str, str]:
        lines = it.program.ask(b"status\n").decode().splitlines()[1:-1]
        return dict(line.split(": ", 1) for line in lines)

    before = status()
    it.reload('[limits]\nfollowers = 5\n[programs.new]\nargv = ["/bin/true"]\n')
    it.program.ask(b"new\n")
    after = status()
    assert after["settings"] != before["settings"]
    assert after["last_reload"].endswith("Z succeeded")
    it.reload("[limits]\nfollowers = -5\n")
    refused = status()
    assert refused["settings"] == after["settings"]
    assert refused["last_reload"].endswith("Z refused")


VARIANT = """
[logs]
main = {{ file = "{folder}/log" }}
[comphash]
roots = ["{folder}"]
algorithm = "{algorithm}"
[programs.which]
argv = ["/bin/echo", "{algorithm}"]
summary = "says {algorithm}"
[programs.only-{algorithm}]
argv = ["/bin/true"]
[limits]
waiting = {waiting}
running_programs = {programs}
[server]
max_clients = {clients}
"""
BROKEN = VARIANT.replace("waiting = {waiting}", "waiting = -1")


class Asker(threading.Thread):
    """A client that asks the same again and again in one packet; counts by whose settings it was answered."""

    def __init__(self, program: Program, question: bytes, is_over: threading.Event, *, stays: bool) -> None:
        super().__init__(daemon=True)
        self._program = program
        self._question = question
        self._is_over = is_over
        self._stays = stays
        self.answers: dict[bytes, int] = {}
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._is_over.is_set():
                with self._program.connect() as client:
                    self._ask(client)
        except BaseException as error:
            self.fault = error

    def _ask(self, client: socket.socket) -> None:
        while True:
            answer = ask(client, self._question, b"pong\n")
            self.answers[answer] = self.answers.get(answer, 0) + 1
            if self._is_over.is_set() or not self._stays:
                return


@pytest.mark.proof
def test_a_hundred_signals_under_load_cut_nobody_and_mix_nothing(start: StartProgram, tmp_path: Path) -> None:
    """Good files and broken ones by turns: each packet is answered by one set of settings, none is lost."""
    texts, broken = {}, {}
    for number, algorithm in enumerate(("sha1", "sha256")):
        folder = tmp_path / algorithm
        folder.mkdir()
        (folder / "file").write_text(algorithm)
        (folder / "log").write_text(f"a line of {algorithm}\n")
        values = {
            "folder": folder,
            "algorithm": algorithm,
            "waiting": 200 + number,
            "programs": 2 + number,
            "clients": 50 + number,
        }
        texts[algorithm] = VARIANT.format(**values) + EVERYTHING
        broken[algorithm] = BROKEN.format(**values) + EVERYTHING
    files = [os.fsencode(tmp_path / algorithm / "file") for algorithm in texts]
    question = b"\n".join(
        [b"help", b"help lastlog", b"lastlog", *(b"comphash " + file for file in files), b"which", b"ping"]
    )
    it = Reloadable(start, tmp_path, texts["sha1"])
    expected = {}
    for algorithm in ("sha256", "sha1"):
        assert it.reload(texts[algorithm])["action"] == "reloaded"
        with it.program.connect() as client:
            expected[algorithm] = ask(client, question, b"pong\n")
    assert len(set(expected.values())) == 2
    is_over = threading.Event()
    askers = [Asker(it.program, question, is_over, stays=number % 2 == 0) for number in range(6)]
    with ExitStack() as stack:
        stack.callback(is_over.set)
        for asker in askers:
            asker.start()
        outcomes = [
            it.reload((broken if turn % 2 else texts)["sha256" if turn % 4 < 2 else "sha1"])["action"]
            for turn in range(100)
        ]
    for asker in askers:
        asker.join(PATIENCE_SECONDS)
        assert asker.fault is None
        assert asker.answers.keys() <= set(expected.values())
    assert {answer for asker in askers for answer in asker.answers} == set(expected.values())
    assert outcomes == ["reloaded", "reload-refused"] * (len(outcomes) // 2)
    assert it.program.stop() == 0
    lost = [record["reason"] for record in it.program.rest() if record["action"] == "client-lost"]
    assert set(lost) == {"closed"}
    assert not it.program.actions("handler-crashed")
