"""The tables whose keys the operator chooses: logs and programs enter as written, checked ones leave."""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from trio_cmd.arguments import ARGUMENT_NAME, ArgvTemplate, Pattern, check_argv, check_pattern
from trio_cmd.escape import escape
from trio_cmd.executables import check_executable
from trio_cmd.settings.conversion import convert, nearest, telling
from trio_cmd.settings.layers import Layer
from trio_cmd.settings.values import NAME, AbsolutePath, JournalUnit, Log, Program

__all__ = ["convert_logs", "convert_programs"]

_LOG_KINDS: Mapping[str, tuple[Any, str]] = {
    "file": (AbsolutePath, "an absolute path"),
    "journal": (JournalUnit, 'the name of a unit, or "*"'),
}
"""What a log may be: key -> its type, and what is said to be expected."""


def convert_logs(layer: Layer, faults: list[str]) -> dict[str, Log]:
    """Convert the logs of a layer; what is wrong with them is added to the faults."""
    source, table = layer.label("logs"), layer.values.get("logs", {})
    if not isinstance(table, dict):
        faults.append(f"{source}: logs: expected a table, [logs]")
        return {}
    logs: dict[str, Log] = {}
    for name, value in table.items():
        path = f"{source}: logs.{escape(name)}"
        if not NAME.fullmatch(name):
            faults.append(f"{path}: expected a name of a-z, 0-9 and -, beginning with a letter, at most 32")
        elif not isinstance(value, dict) or len(value.keys() & _LOG_KINDS.keys()) != 1:
            expected = '{ file = "/absolute/path" } or { journal = "UNIT" }'
            faults.append(f"{path}: expected {expected}")
        else:
            logs |= _convert_log(path, name, value, faults)
    return logs


def _convert_log(path: str, name: str, value: Mapping[str, Any], faults: list[str]) -> dict[str, Log]:
    """Convert one log; returns nothing when it has faults."""
    converted: dict[str, Any] = {}
    for key, text in value.items():
        if key not in _LOG_KINDS:
            faults.append(f"{path}.{escape(key)}: unknown key{nearest(key, _LOG_KINDS)}")
            continue
        kind, expected = _LOG_KINDS[key]
        try:
            converted[key] = convert(text, kind)
        except ValueError:
            faults.append(f"{path}.{key}: expected {expected}")
    return {name: Log(**converted)} if converted else {}


def convert_programs(layer: Layer, commands: Collection[str], faults: list[str]) -> dict[str, Program]:
    """Convert the programs of a layer; what is wrong with them is added to the faults.

    Args:
        layer: as it was written.
        commands: names that are taken.
        faults: what is wrong is added here.
    """
    source, table = layer.label("programs"), layer.values.get("programs", {})
    if not isinstance(table, dict):
        faults.append(f"{source}: programs: expected a table, [programs.NAME]")
        return {}
    programs = {}
    for name, value in table.items():
        told = len(faults)
        path = f"{source}: programs.{escape(name)}"
        if not NAME.fullmatch(name):
            faults.append(f"{path}: expected a name of a-z, 0-9 and -, beginning with a letter, at most 32")
        elif name in commands:
            faults.append(f"{path}: this name is taken; choose another")
        elif not isinstance(value, dict):
            faults.append(f"{path}: expected a table, [programs.{name}]")
        elif "argv" not in value:
            faults.append(f"{path}: expected argv, the program and its arguments")
        else:
            values = _convert_program(path, value, faults)
            if len(faults) == told:
                programs[name] = Program(**values)
    return programs


def _convert_program(path: str, table: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    """Convert the keys of one program, and look whether it can be run."""
    fields = {field.name: field.type for field in msgspec.structs.fields(Program)}
    faults += [
        f"{path}.{escape(key)}: unknown key{nearest(key, fields)}" for key in table if key not in fields
    ]
    values: dict[str, Any] = {"argv": [], "arguments": {}}
    for key, value in table.items():
        if key == "arguments":
            values[key] = _convert_arguments(path, value, faults)
        elif key in fields:
            with telling(f"{path}.{key}", faults):
                values[key] = convert(value, fields[key])
    if values["argv"]:
        with telling(f"{path}.argv", faults):
            _check_argv(values["argv"], values["arguments"])
    return values


def _convert_arguments(path: str, table: Any, faults: list[str]) -> dict[str, Pattern]:
    if not isinstance(table, dict):
        faults.append(f"{path}.arguments: expected a table, name = pattern")
        return {}
    for name, pattern in table.items():
        with telling(f"{path}.arguments.{escape(name)}", faults):
            if not ARGUMENT_NAME.fullmatch(name):
                raise ValueError("expected a name of a-z, 0-9 and _, beginning with a letter")
            check_pattern(pattern)
    return table


def _check_argv(argv: list[str], arguments: Mapping[str, Pattern]) -> None:
    """Check what is run, and what a client may add to it.

    Raises:
        ValueError: what is wrong, in one line.
    """
    if any("\0" in text for text in argv):
        raise ValueError("expected text without NUL")
    check_argv(argv, arguments)
    check_executable(ArgvTemplate("", argv[:1], {}).fill(b"")[0].decode())
