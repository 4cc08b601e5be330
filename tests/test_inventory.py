"""Inventories of Ansible, read by the real ``ansible-inventory``."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import reap
from program import PATIENCE_SECONDS, children_of, wait_until
from trio_cmd.client import ansible
from trio_cmd.client.hosts import Host
from trio_cmd.client.inventory import Entry, hosts_of, read_inventory
from trio_cmd.escape import escape

ANSIBLE = pytest.mark.needs("ansible-inventory")
PREFIX = "--inventory: "

INI = """\
lone.example

[web]
web[01:03].example

[web:vars]
trio_cmd_port=9998

[db]
db-a ansible_host=192.0.2.7 ansible_port=2222
db-b ansible_host=2001:db8::7 trio_cmd_port=7

[site:children]
web
db

[empty]
"""


def complaint_of(read: Callable[[], object]) -> str:
    with pytest.raises(ValueError, match=r"\A.+\Z") as caught:
        read()
    return str(caught.value)


@ANSIBLE
def test_a_real_inventory_is_read_with_groups_ranges_and_variables(tmp_path: Path) -> None:
    """What Ansible manages is asked under the names it has there; variables beside the file count as well."""
    path = tmp_path / "hosts.ini"
    path.write_text(INI)
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "db.yml").write_text("trio_cmd_port: 9997\n")
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars" / "web01.example").write_text("ansible_host: 192.0.2.1\n")
    lone = Host("lone.example", "lone.example", 9999)
    web = [
        Host("web01.example", "192.0.2.1", 9998),
        Host("web02.example", "web02.example", 9998),
        Host("web03.example", "web03.example", 9998),
    ]
    db = [Host("db-a", "192.0.2.7", 9997), Host("db-b", "2001:db8::7", 7)]
    assert read_inventory(str(path)) == [lone, *web, *db]
    assert read_inventory(str(path), ["site"]) == [*web, *db]
    assert read_inventory(str(path), ["db-a", "web"]) == [db[0], *web]


@ANSIBLE
def test_what_ansible_cannot_read_is_told_in_one_line(tmp_path: Path) -> None:
    """It would warn, and go on with no hosts."""
    path = tmp_path / "hosts.ini"
    path.write_text("[site:children]\nnobody\n")
    expected = f"Completely failed to parse inventory source {path}"
    assert complaint_of(lambda: read_inventory(str(path))) == (
        f"{PREFIX}{expected}; ansible-inventory --list -i '{path}' says more"
    )


@ANSIBLE
def test_an_inventory_that_is_not_ready_is_not_waited_for(tmp_path: Path) -> None:
    """One can be a program that asks a cloud; it is ended with all it has started."""
    path, started = tmp_path / "inventory", tmp_path / "pid"
    path.write_text(f"#!/bin/sh\necho $$ >'{started}.new' && mv '{started}.new' '{started}'\nexec sleep 60\n")
    path.chmod(0o700)
    expected = "ansible-inventory was not done in 1 s; see what it waits for"
    assert complaint_of(lambda: read_inventory(str(path), patience_seconds=1)) == expected
    if started.exists():  # a machine may be too busy for that in 1 s
        pid = int(started.read_text())
        wait_until(lambda: not is_running(pid), "the program has ended")


@ANSIBLE
def test_a_signal_ends_what_was_started_and_then_does_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell is told the truth of how it ended, and the inventory's program is ended before."""
    raised: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with ansible._taking_along() as started:
            os.kill(os.getpid(), signal.SIGHUP)  # while nothing has been started yet
            assert raised == [signal.SIGHUP]
            for has_ended in (True, False):
                process = subprocess.Popen(["sleep", "60"], start_new_session=True)
                started.append(process)
                if has_ended:
                    process.kill()
                    process.wait()
            signal.signal(signal.SIGHUP, handler := signal.getsignal(signal.SIGTERM))
            assert callable(handler)
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        assert process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
        assert raised == [signal.SIGHUP, signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_program_behind(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C while a cloud is asked: what asks it is in a session of its own, which hears nothing of it."""
    path, started = tmp_path / "inventory", tmp_path / "pid"
    path.write_text(f"#!/bin/sh\necho $$ >'{started}.new' && mv '{started}.new' '{started}'\nexec sleep 60\n")
    path.chmod(0o700)
    command = [sys.executable, "-m", "trio_cmd", "ask", "--inventory", str(path), "--", "ping"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        wait_until(started.exists, "the inventory is being read")
        process.send_signal(number)
        _, said = process.communicate()
    assert (process.returncode, said) == (-number, b"")
    pid = int(started.read_text())
    wait_until(lambda: not is_running(pid), "the program has ended")


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@ANSIBLE
def test_an_inventory_has_a_bound(tmp_path: Path) -> None:
    """What a program prints without end does not fill the memory."""
    path = tmp_path / "hosts.ini"
    path.write_text(INI)
    expected = "ansible-inventory printed more than 100 bytes; use --hosts-file FILE"
    assert complaint_of(lambda: read_inventory(str(path), max_bytes=100)) == expected


def test_an_inventory_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Ansible would take it for one without hosts."""
    assert complaint_of(lambda: read_inventory(f"{tmp_path}/no")) == (
        f"{PREFIX}'{tmp_path}/no': no such file or folder"
    )


def test_without_ansible_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is installed where inventories are written, not everywhere."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert complaint_of(lambda: read_inventory(str(tmp_path))) == (
        "ansible-inventory is not installed: install ansible-core, or use --hosts-file FILE"
    )


@pytest.mark.parametrize(
    ("printed", "complaint"),
    [
        ("echo no", "ansible-inventory printed no inventory: "),
        (r"printf '{\"all\": {\"hosts\": [7]}}'", "ansible-inventory printed no inventory: "),
        (r"printf '{\"\377\": {}}'", "ansible-inventory printed no inventory: "),
        ("echo 'first\nlast \033[1m' >&2; exit 3", rf"{PREFIX}last \x1b[1m; "),
        ("exit 3", f"{PREFIX}ansible-inventory ended with exit code 3; "),
        ("kill -9 $$", f"{PREFIX}ansible-inventory ended with exit code -9; "),
        (
            "printf '[WARNING]: a\nb\n[ERROR]: it is\nlike this\n\nTraceback: x\n' >&2; exit 1",
            f"{PREFIX}it is like this; ",
        ),
        ("printf 'ERROR! %0999d' 7 >&2; exit 1", f"{PREFIX}{'0' * 300}; "),
    ],
)
def test_a_version_of_ansible_that_behaves_otherwise_is_told_in_one_line(
    printed: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in does what no version at hand does."""
    program = tmp_path / "ansible-inventory"
    program.write_text(f"#!/bin/sh\n{printed}\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert complaint_of(lambda: read_inventory(str(tmp_path))).startswith(complaint)


def test_interrupting_ends_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C does not leave it behind: it is in a session of its own."""
    program = tmp_path / "ansible-inventory"
    program.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    before = children_of(os.getpid())

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(ansible, "_read", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_inventory(str(tmp_path))
    wait_until(lambda: not reap(children_of(os.getpid()) - before), "the program has ended")


# What was read


ENTRIES = {
    "_meta": Entry(hostvars={"a": {"ansible_host": "192.0.2.1"}}),
    "all": Entry(children=["ungrouped", "top"]),
    "top": Entry(children=["left", "right"], hosts=["t"]),
    "left": Entry(hosts=["a", "b"]),
    "right": Entry(hosts=["b", "c"], children=["top"]),
}


@pytest.mark.parametrize(
    ("limit", "names"),
    [
        ([], "tabc"),
        (["all"], "tabc"),
        (["top"], "tabc"),
        (["right", "a"], "bcta"),
        (["c", "left"], "cab"),
        (["c", "c"], "c"),
    ],
)
def test_hosts_are_chosen_by_groups_and_names(limit: list[str], names: str) -> None:
    """Groups below a group belong to it, also where they go round in a circle, and no host comes twice."""
    assert [host.name for host in hosts_of(ENTRIES, limit)] == [*names]


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("lefd", "--limit: no group and no host 'lefd' in the inventory; did you mean left?"),
        ("_meta", "--limit: no group and no host '_meta' in the inventory"),
        ("\x1b", r"--limit: no group and no host '\x1b' in the inventory"),
        ("!left", "--limit: no group and no host '!left' in the inventory; did you mean left?"),
    ],
)
def test_a_group_that_is_not_there_is_told(word: str, complaint: str) -> None:
    """A slip asks nobody, rather than everybody."""
    assert complaint_of(lambda: hosts_of(ENTRIES, [word])) == complaint


def test_an_inventory_without_hosts_is_refused() -> None:
    """Nobody asked would be all answered."""
    assert complaint_of(lambda: hosts_of({"all": Entry()})) == f"{PREFIX}no host in it"
    entries = {"all": Entry(children=["a", "b"]), "a": Entry(), "b": Entry(hosts=["c"])}
    assert complaint_of(lambda: hosts_of(entries, ["a"])) == f"{PREFIX}no host in a"


def test_an_inventory_of_too_many_hosts_is_refused() -> None:
    """As everywhere."""
    entries = {"all": Entry(hosts=[f"h{number}" for number in range(10_001)])}
    assert complaint_of(lambda: hosts_of(entries)) == (
        f"{PREFIX}more than 10000 hosts; ask in several turns, by --limit GROUP"
    )


ADDRESS = "ansible_host: expected a name or an address, not "
PORT = "trio_cmd_port: expected a port from 1 to 65535"


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        (
            {"ansible_host": "{{ address }}"},
            ADDRESS + "'{{ address }}'; ansible-inventory fills in no templates",
        ),
        ({"ansible_host": ""}, ADDRESS + "''"),
        ({"ansible_host": "x " * 100}, ADDRESS + "'" + "x " * 40 + "...'"),
        ({"ansible_host": 7}, ADDRESS + "a value of another kind"),
        ({"ansible_host": {"__ansible_vault": "x"}}, ADDRESS + "a value of another kind"),
        ({"ansible_host": "web1:22"}, ADDRESS + "'web1:22'"),
        ({"ansible_host": "unix:/run/sock"}, ADDRESS + "'unix:/run/sock'"),
        ({"trio_cmd_port": "{{ port }}"}, PORT),
        ({"trio_cmd_port": 0}, PORT),
        ({"trio_cmd_port": True}, PORT),
        ({"trio_cmd_port": None}, PORT),
        ({"trio_cmd_port": 7.0}, PORT),
    ],
)
def test_a_variable_of_a_wrong_form_is_told_with_its_host(
    variables: dict[str, object], complaint: str
) -> None:
    """Templates are not filled in by ``ansible-inventory``, and secrets not opened."""
    variables = {"ansible_host": "192.0.2.1", **variables}
    entries = {"_meta": Entry(hostvars={"h\x1b": variables}), "all": Entry(hosts=["h\x1b"])}
    assert complaint_of(lambda: hosts_of(entries)) == rf"{PREFIX}host 'h\x1b': {complaint}"


def test_a_name_that_is_no_address_needs_one() -> None:
    """Names of an inventory are free; what is shown of them cannot change the terminal."""
    entries = {
        "_meta": Entry(hostvars={"the\x1b one": {"ansible_host": "::1", "trio_cmd_port": "7"}}),
        "all": Entry(hosts=["the\x1b one"]),
    }
    assert hosts_of(entries) == [Host(r"the\x1b one", "::1", 7)]


WORDS = st.sampled_from(["all", "a", "b", "c", "_meta"]) | st.text(max_size=3)
ENTRY = st.builds(
    Entry,
    hosts=st.lists(WORDS, max_size=3),
    children=st.lists(WORDS, max_size=3),
    hostvars=st.dictionaries(
        WORDS,
        st.dictionaries(
            st.sampled_from(["ansible_host", "trio_cmd_port"]), WORDS | st.integers() | st.none()
        ),
        max_size=3,
    ),
)


@given(st.dictionaries(WORDS, ENTRY), st.lists(WORDS, max_size=2))
def test_any_inventory_gives_hosts_or_one_line(entries: dict[str, Entry], limit: list[str]) -> None:
    """Inventories are written by programs too."""
    try:
        hosts = hosts_of(entries, limit)
    except ValueError as error:
        complaint = str(error)
        assert complaint == escape(complaint)
        return
    assert hosts
    assert len({host.name for host in hosts}) == len(hosts)
