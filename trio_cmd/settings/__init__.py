"""Every setting with type, unit, default and range: file, environment and flags enter, one value leaves.

A later layer wins: settings file < environment < flags.  All faults are found before any is
told: each key is converted by itself, because a whole-document conversion stops at the first.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from trio_cmd.errors import SettingsError
from trio_cmd.escape import escape
from trio_cmd.settings.changes import changed_keys, keep_listeners
from trio_cmd.settings.conversion import check_absolute_path, convert, nearest
from trio_cmd.settings.granted import (
    check_commands,
    check_exposure,
    check_host,
    check_unix_socket,
    convert_grants,
    is_exposed,
)
from trio_cmd.settings.layers import (
    DEFAULT_PATH,
    FLAGS,
    Layer,
    from_allow_flags,
    from_environment,
    from_flags,
    from_log_flags,
    read_file,
)
from trio_cmd.settings.named import convert_logs, convert_programs
from trio_cmd.settings.origins import find_origins
from trio_cmd.settings.scraping import METRICS, UNKNOWN, check_metrics, check_metrics_host
from trio_cmd.settings.toml import write_toml
from trio_cmd.settings.values import (
    ALGORITHMS,
    Comphash,
    Grant,
    Limits,
    Log,
    Logging,
    Metrics,
    Program,
    ServerSettings,
    Settings,
    Tls,
)

__all__ = [
    "ALGORITHMS",
    "DEFAULT_PATH",
    "FLAGS",
    "METRICS",
    "UNKNOWN",
    "Comphash",
    "Grant",
    "Layer",
    "Limits",
    "Log",
    "Logging",
    "Metrics",
    "Program",
    "ServerSettings",
    "Settings",
    "Tls",
    "changed_keys",
    "find_origins",
    "from_allow_flags",
    "from_environment",
    "from_flags",
    "from_log_flags",
    "is_exposed",
    "keep_listeners",
    "load",
    "read_file",
    "write_toml",
]

_SECTIONS: Mapping[str, type[Struct]] = {
    "server": ServerSettings,
    "limits": Limits,
    "logging": Logging,
    "comphash": Comphash,
    "tls": Tls,
    "metrics": Metrics,
}
# The keys of these are the operator's.
_NAMED = ("logs", "programs", "grants")


def load(
    layers: Iterable[Layer], commands: Collection[str] = (), in_force: Settings | None = None
) -> Settings:
    """Check the layers and put the later over the earlier.

    Args:
        layers: the weakest first.
        commands: names that are taken, so that no program can have them.
        in_force: of a server that runs: what is exposed is judged by its listeners as well.

    Raises:
        SettingsError: with every fault of every layer, one line each.
    """
    faults: list[str] = []
    commands = (*commands, METRICS)
    sections: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
    logs: dict[str, Log] = {}
    programs: Mapping[str, Program] = {}
    grants: dict[str, Grant] = {}
    for layer in layers:
        for section, key, value in _entries(layer, faults):
            sections[section][key] = value
        stronger = convert_logs(layer, faults)  # comes first: the first is the default
        logs = {**stronger, **{name: log for name, log in logs.items() if name not in stronger}}
        programs = convert_programs(layer, (*commands, UNKNOWN), faults) or programs
        grants |= convert_grants(layer, faults)
    if faults:
        raise SettingsError(faults)
    built = {name: msgspec.convert(sections[name], kind) for name, kind in _SECTIONS.items()}
    named = {"logs": logs, "programs": programs, "grants": tuple(grants.values())}
    settings = msgspec.convert({**built, **named}, Settings)
    faults = check_commands(settings.grants, [*commands, *programs])
    for judged in [settings] if in_force is None else [settings, keep_listeners(settings, in_force)]:
        found = check_exposure(judged, are_roots_set="roots" in sections["comphash"])
        faults += [fault for fault in [*found, *check_metrics(judged)] if fault not in faults]
    if faults:
        raise SettingsError(faults)
    return settings


def _entries(layer: Layer, faults: list[str]) -> Iterator[tuple[str, str, Any]]:
    """Convert the values of the fixed sections; yields (section, key, value)."""
    for section, table in layer.values.items():
        if section in _NAMED:
            continue
        if section not in _SECTIONS:
            near = nearest(section, [*_SECTIONS, *_NAMED])
            faults.append(f"{layer.source}: {escape(section)}: unknown key{near}")
        elif not isinstance(table, dict):
            faults.append(f"{layer.source}: {section}: expected a table, [{section}]")
        else:
            yield from _convert_table(layer, section, table, faults)


def _convert_table(
    layer: Layer, section: str, table: Mapping[str, Any], faults: list[str]
) -> Iterator[tuple[str, str, Any]]:
    fields = {field.name: field.type for field in msgspec.structs.fields(_SECTIONS[section])}
    for key, value in table.items():
        path = f"{section}.{key}"
        if key not in fields:
            faults.append(f"{layer.source}: {escape(path)}: unknown key{nearest(key, fields)}")
            continue
        # A variable names one root; the flag may be repeated.
        is_single = path == "comphash.roots" and layer.is_text and isinstance(value, str)
        try:
            converted = convert([value] if is_single else value, fields[key], is_text=layer.is_text)
            _CHECKS.get(path, _accept)(converted)
        except ValueError as error:
            faults.append(f"{layer.label(path)}: {path}: {error}")
        else:
            yield section, key, converted


def _check_roots(roots: Iterable[str]) -> None:
    """Let only folders be roots whose meaning does not depend on where the server is started."""
    if not all(root.startswith("/") and "\0" not in root for root in roots):
        raise ValueError("expected absolute paths of folders")


def _accept(value: Any) -> None:
    """Find nothing wrong with what its type allows."""


_CHECKS: Mapping[str, Callable[[Any], None]] = {
    "server.host": check_host,
    "server.unix_socket": check_unix_socket,
    "logging.file": check_absolute_path,
    "metrics.host": check_metrics_host,
    "comphash.roots": _check_roots,
}
"""What is looked at besides the type: dotted path -> raises ValueError with what was expected."""
