"""An inventory of Ansible enters, the hosts in it leave; ``ansible-inventory`` reads it.

Inventories are INI, YAML, programs or folders of all these, with variables in files beside them:
only Ansible itself reads them as Ansible does.
"""

import difflib
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import msgspec

from trio_cmd.client.hosts import DEFAULT_PORT, MAX_HOSTS, Host, parse_host, parse_port
from trio_cmd.escape import escape, quote

__all__ = ["Entry", "hosts_of", "read_inventory"]

PROGRAM = "ansible-inventory"
PATIENCE_SECONDS = 60.0  # an inventory can be a program that asks a cloud
MAX_BYTES = 1 << 26  # ten thousand hosts with 6 KiB of variables each
_PIECE_BYTES = 1 << 16
_MAX_COMPLAINT = 300  # characters
_MAX_SHOWN = 80  # characters of a value
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Its lines are wrapped; the paragraph ends with the text, or where a traceback or a warning begins.
_ERROR = re.compile(r"^\[?ERROR[]!:]+ *(.*?)(?=^\s*$|^Traceback|^\[|\Z)", re.DOTALL | re.MULTILINE)

# What it cannot read it would pass over with a warning; and its complaint is read here, not on a terminal.
_ENVIRONMENT = {
    "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
    "ANSIBLE_INVENTORY_UNPARSED_FAILED": "1",
    "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0",
    "ANSIBLE_DEPRECATION_WARNINGS": "0",
    "ANSIBLE_NOCOLOR": "1",
    "LC_ALL": "C.UTF-8",
}


class Entry(msgspec.Struct):
    """A group of the inventory, or ``_meta``, which has the variables of the hosts."""

    hosts: list[str] = []
    children: list[str] = []
    hostvars: dict[str, dict[str, Any]] = {}


def read_inventory(
    path: str,
    limit: Sequence[str] = (),
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    max_bytes: int = MAX_BYTES,
) -> list[Host]:
    """Read the hosts of an inventory, in its order; their names are those of the inventory.

    Args:
        path: a file or a folder.
        limit: groups, with the groups below them, and hosts; none: all hosts.
        patience_seconds: how long it may take.
        max_bytes: how much there may be.

    Raises:
        ValueError: why there are none, in one line.
    """
    if not os.path.exists(path):
        raise ValueError(f"--inventory: {quote(path)}: no such file or folder")
    output = _run(path, patience_seconds, max_bytes)
    try:
        entries = msgspec.json.decode(output, type=dict[str, Entry])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{PROGRAM} printed no inventory: {escape(str(error))}") from None
    return hosts_of(entries, limit)


def hosts_of(entries: Mapping[str, Entry], limit: Sequence[str] = ()) -> list[Host]:
    """Pick the hosts of an inventory that was read; see ``read_inventory``."""
    variables = entries.get("_meta", Entry()).hostvars
    known = list(dict.fromkeys(_members("all", entries)))
    names: Iterable[str] = known
    if limit:
        chosen = [name for word in limit for name in _chosen(word, entries, known)]
        names = dict.fromkeys(chosen)
    hosts = [_host(name, variables.get(name, {})) for name in names]
    if not hosts:
        raise ValueError(f"--inventory: no host in {', '.join(map(escape, limit)) or 'it'}")
    if len(hosts) > MAX_HOSTS:
        raise ValueError(f"--inventory: more than {MAX_HOSTS} hosts; ask in several turns, by --limit GROUP")
    return hosts


def _chosen(word: str, entries: Mapping[str, Entry], known: Sequence[str]) -> Iterable[str]:
    """Give the hosts of a group, or the host of this name.

    Raises:
        ValueError: there is neither.
    """
    if word in entries and word != "_meta":
        return _members(word, entries)
    if word in known:
        return (word,)
    groups = [group for group in entries if group != "_meta"]
    near = difflib.get_close_matches(word, [*groups, *known], 1)
    hint = f"; did you mean {escape(near[0])}?" if near else ""
    raise ValueError(f"--limit: no group and no host {quote(word)} in the inventory{hint}")


def _members(group: str, entries: Mapping[str, Entry]) -> Iterator[str]:
    """Give the hosts of a group and of all groups below it; one can come more than once."""
    # A list and no recursion: how deep it is, others decide; and no group is looked at twice.
    waiting, seen = [group], {group}
    while waiting:
        entry = entries.get(waiting.pop(), Entry())
        yield from entry.hosts
        below = [child for child in reversed(entry.children) if child not in seen]
        seen.update(below)
        waiting += below


def _host(name: str, variables: Mapping[str, Any]) -> Host:
    """Make a host of its name and variables.

    Raises:
        ValueError: which host is wrong, and what was expected.
    """
    head = f"--inventory: host {quote(name)}"
    address = variables.get("ansible_host", name)
    port = variables.get("trio_cmd_port", DEFAULT_PORT)
    try:
        parsed = parse_host(address if isinstance(address, str) else "")
    except ValueError:
        parsed = None
    if parsed is None or parsed.name != parsed.address:  # with a port, or a unix socket
        raise ValueError(f"{head}: ansible_host: expected a name or an address, {_describe(address)}")
    try:
        return Host(escape(name), parsed.address, parse_port(str(port)))
    except ValueError as error:
        raise ValueError(f"{head}: trio_cmd_port: {error}") from None


def _describe(value: object) -> str:
    """Say what stands there instead; it may be long, and a vault."""
    if not isinstance(value, str):
        return "not a value of another kind"
    shown = quote(value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + "...")
    return f"not {shown}" + (f"; {PROGRAM} fills in no templates" if "{{" in value else "")


def _run(path: str, patience_seconds: float, max_bytes: int) -> bytes:
    """Have the inventory printed as JSON.

    Raises:
        ValueError: why it is not there.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise ValueError(f"{PROGRAM} is not installed: install ansible-core, or use --hosts-file FILE")
    deadline = time.monotonic() + patience_seconds
    with (
        _taking_along() as started,
        subprocess.Popen(
            [program, "--list", "-i", os.path.abspath(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,  # so that nobody is asked for a password, and all of it can be ended
        ) as process,
    ):
        started.append(process)
        try:
            output, said = _read(process, deadline, max_bytes)
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise ValueError(
                f"{PROGRAM} was not done in {patience_seconds:g} s; see what it waits for"
            ) from None
        finally:
            if process.returncode is None:  # not reaped, so the number is its own
                os.killpg(process.pid, signal.SIGKILL)
    if code != 0:
        more = f"{PROGRAM} --list -i {quote(path)} says more"
        raise ValueError(f"--inventory: {_complaint(said, code)}; {more}")
    return output


@contextmanager
def _taking_along() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Have a signal that ends this program end what it has started first.

    That is in a session of its own, which hears no Ctrl-C.  A signal that is ignored, or has a
    handler of its own, keeps it.
    """
    started: list[subprocess.Popen[bytes]] = []

    def end(number: int, _: FrameType | None) -> None:
        for process in started:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    taken = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield started
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _read(process: subprocess.Popen[bytes], deadline: float, max_bytes: int) -> tuple[bytes, bytes]:
    """Read both pipes to their ends.

    Raises:
        TimeoutError: the deadline has passed.
        ValueError: there is too much.
    """
    pipes = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for pipe, data in pipes.items():
            assert pipe is not None
            selector.register(pipe, selectors.EVENT_READ, data)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if not (piece := os.read(key.fd, _PIECE_BYTES)):
                    selector.unregister(key.fileobj)
                key.data.extend(piece)
                if len(key.data) > max_bytes:
                    raise ValueError(f"{PROGRAM} printed more than {max_bytes} bytes; use --hosts-file FILE")
    output, said = pipes.values()
    return bytes(output), bytes(said)


def _complaint(said: bytes, code: int) -> str:
    """Find what it complains of: the paragraph of its last error, as one line."""
    text = said.decode(errors="replace")
    found = _ERROR.findall(text) or text.strip().rsplit("\n", 1)[-1:]
    line = escape(" ".join(found[-1].split()))
    return line[:_MAX_COMPLAINT] or f"{PROGRAM} ended with exit code {code}"
