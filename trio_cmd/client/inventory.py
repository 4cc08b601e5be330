"""An inventory of Ansible enters, the hosts in it leave; ``ansible`` has it read."""

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from trio_cmd.client.ansible import PROGRAM, print_inventory
from trio_cmd.client.hosts import DEFAULT_PORT, MAX_HOSTS, Host, parse_host, parse_port
from trio_cmd.escape import escape, quote

__all__ = ["Entry", "hosts_of", "read_inventory"]

PATIENCE_SECONDS = 60.0  # an inventory can be a program that asks a cloud
MAX_BYTES = 1 << 26  # ten thousand hosts with 6 KiB of variables each
_MAX_SHOWN = 80  # characters of a value


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
    output = print_inventory(path, patience_seconds, max_bytes)
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
