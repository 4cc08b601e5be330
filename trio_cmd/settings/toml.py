"""Settings and where they came from enter, TOML that loads to the same settings leaves.

The writers of TOML there are either write no comments or bring a document model of their own; the
few types of the settings need neither.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from trio_cmd.errors import SettingsError
from trio_cmd.settings.values import Settings

__all__ = ["write_toml"]

_DEFAULT = "default"


def write_toml(settings: Settings, origins: Mapping[str, str]) -> bytes:
    """Write settings down.

    Args:
        settings: all of them.
        origins: dotted key -> where it came from; the others are said to be defaults.

    Raises:
        SettingsError: a text is not UTF-8, which TOML must be.
    """
    text = "\n".join(_lines(settings, origins)) + "\n"
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise SettingsError(["--print-config: a path is not UTF-8, and TOML has no form for it"]) from None


def _lines(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    for section, value in msgspec.to_builtins(settings).items():
        if section == "grants":
            for grant in value:
                yield from ["[[grants]]", *_pairs(grant, f"grants.{grant['name']}", origins)]
        elif section == "programs":
            for name, program in value.items():
                yield from _program(f"programs.{name}", dict(program), origins)
        else:
            yield from [f"[{section}]", *_pairs(value, section, origins)]


def _program(path: str, program: dict[str, Any], origins: Mapping[str, str]) -> Iterator[str]:
    arguments = program.pop("arguments")
    yield from [f"[{path}]", *_pairs(program, path, origins)]
    if arguments:
        origin = origins.get(f"{path}.arguments", _DEFAULT)
        yield from [f"[{path}.arguments]", *_pairs(arguments, "", {f".{name}": origin for name in arguments})]


def _pairs(table: Mapping[str, Any], path: str, origins: Mapping[str, str]) -> Iterator[str]:
    for key, value in table.items():
        yield f"{key} = {_value(value)}  # {origins.get(f'{path}.{key}', _DEFAULT)}"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        pairs = [f"{key} = {_value(each)}" for key, each in value.items() if each is not None]
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    # JSON's strings, numbers and booleans are TOML's, but for one character it lets stand.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
