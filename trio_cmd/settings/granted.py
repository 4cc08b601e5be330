"""Grants enter as written, checked ones leave; and what all settings together expose is judged.

Exposing is said aloud: whoever lets other hosts in says which ones, what they may ask, and below
which folders, or the start is refused with the remedy.
"""

import ipaddress
import os
from collections.abc import Collection
from typing import Any

import msgspec

from trio_cmd.addresses import is_local_host, is_local_network, parse_network
from trio_cmd.escape import escape
from trio_cmd.settings.conversion import check_absolute_path, convert, nearest, telling
from trio_cmd.settings.layers import Layer
from trio_cmd.settings.values import NAME, Grant, Settings

__all__ = [
    "check_commands",
    "check_exposure",
    "check_host",
    "check_unix_socket",
    "convert_grants",
    "is_exposed",
]

# Of sockaddr_un, without the byte that ends it.
MAX_UNIX_PATH_BYTES = 107


def convert_grants(layer: Layer, faults: list[str]) -> dict[str, Grant]:
    """Convert the grants of a layer, by their names; what is wrong with them is added to the faults."""
    tables = layer.values.get("grants", [])
    source = layer.label("grants")
    if not isinstance(tables, (list, tuple)):
        faults.append(f"{source}: grants: expected tables, [[grants]]")
        return {}
    grants: dict[str, Grant] = {}
    for index, table in enumerate(tables):
        told = len(faults)
        path = f"{source}: grants.{_show_name(table, index)}"
        values = _convert_grant(path, table, faults)
        if values.get("name") in grants:
            faults.append(f"{path}.name: there are two grants of this name; choose another")
        if len(faults) == told:
            grants[values["name"]] = Grant(**values)
    return grants


def _show_name(table: Any, index: int) -> str:
    """Name a grant in a fault: by its name where it has one, else by its place."""
    name = table.get("name") if isinstance(table, dict) else None
    return name if isinstance(name, str) and NAME.fullmatch(name) else str(index)


def _convert_grant(path: str, table: Any, faults: list[str]) -> dict[str, Any]:
    if not isinstance(table, dict):
        faults.append(f"{path}: expected a table, [[grants]]")
        return {}
    fields = {field.name: field for field in msgspec.structs.fields(Grant)}
    unknown = [key for key in table if key not in fields]
    faults += [f"{path}.{escape(key)}: unknown key{nearest(key, fields)}" for key in unknown]
    missing = [name for name, field in fields.items() if field.required and name not in table]
    faults += [f"{path}.{name}: expected this key" for name in missing]
    values: dict[str, Any] = {}
    for key in table.keys() & fields.keys():
        with telling(f"{path}.{key}", faults):
            values[key] = _convert_key(key, table[key], fields[key].type)
    for text in values.get("addresses", ()):
        with telling(f"{path}.addresses", faults):
            parse_network(text)
    return values


_EXPECTED = {
    "addresses": "expected a list of networks",
    "commands": 'expected a list of commands, or ["*"]',
    "name": "expected a name of a-z, 0-9 and -, beginning with a letter, at most 32",
    "token_sha256": "expected the 64 hex digits that `trio-cmd token NAME` prints",
}
"""What is said in place of a pattern."""


def _convert_key(key: str, value: Any, kind: Any) -> Any:
    """Convert one value of a grant.

    Raises:
        ValueError: what was expected instead.
    """
    try:
        converted = convert(value, kind)
    except ValueError as error:
        raise ValueError(_EXPECTED.get(key, str(error))) from None
    if key == "certificate" and "*" in converted:
        raise ValueError("expected one DNS name or URI; it is compared as a whole, so a * matches nothing")
    return converted


def check_commands(grants: Collection[Grant], known: Collection[str]) -> list[str]:
    """Find the names in grants that are no command."""
    return [
        f"grants.{grant.name}.commands: there is no command {escape(name)}{nearest(name, known)}"
        for grant in grants
        for name in grant.commands
        if name not in known and name != "*"
    ]


def check_host(host: str) -> None:
    """Look whether it can be listened there; no name is looked up.

    Raises:
        ValueError: what was expected.
    """
    if host in ("", "*", "localhost"):
        return
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError('expected an address of this host, "*" for all, or "" for none') from None


def check_unix_socket(path: str) -> None:
    """Look whether a socket can have this path.

    Raises:
        ValueError: what was expected.
    """
    check_absolute_path(path)
    if len(os.fsencode(path)) > MAX_UNIX_PATH_BYTES:
        raise ValueError(f"expected a path of at most {MAX_UNIX_PATH_BYTES} bytes")


def is_exposed(settings: Settings) -> bool:
    """Tell whether other hosts can reach the listener."""
    return not is_local_host(settings.server.host)


def check_exposure(settings: Settings, *, are_roots_set: bool) -> list[str]:
    """Find what is exposed without having been said aloud; one line each, with the remedy."""
    server, tls = settings.server, settings.tls
    faults = []
    if not server.host and not server.unix_socket:
        faults.append("server.host: nothing to listen on; set server.host or server.unix_socket")
    if is_exposed(settings):
        faults += _check_said_aloud(settings, are_roots_set=are_roots_set)
    if bool(tls.certificate) != bool(tls.key):
        faults.append("tls: a certificate and its key belong together; set tls.certificate and tls.key")
    if tls.client_ca and not tls.certificate:
        faults.append("tls.client_ca: needs a server certificate; set tls.certificate and tls.key")
    for grant in settings.grants:
        faults += _check_protected(grant, settings)
    return faults


def _check_said_aloud(settings: Settings, *, are_roots_set: bool) -> list[str]:
    faults = []
    where = f"server.host: {settings.server.host} can be reached from other hosts"
    if not any(grant.addresses for grant in settings.grants):
        faults.append(f"{where}; say which ones: --allow NETWORK, or [[grants]] with addresses")
    if not are_roots_set:
        faults.append(f"{where}; say which folders may be hashed: --root DIR, or comphash.roots")
    return faults


def _check_protected(grant: Grant, settings: Settings) -> list[str]:
    """See that secrets do not travel in plain text, and that certificates are asked for."""
    path = f"grants.{grant.name}"
    is_local = all(is_local_network(parse_network(text)) for text in grant.addresses)
    faults = []
    if grant.token_sha256 and not is_local and not settings.tls.certificate:
        faults.append(
            f"{path}.token_sha256: a token from other hosts needs TLS; set tls.certificate and tls.key"
        )
    if grant.certificate and not settings.tls.client_ca:
        faults.append(f"{path}.certificate: no client is asked for its certificate; set tls.client_ca")
    return faults
