"""Layers of settings enter, where each key's value came from leaves."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trio_cmd.settings.layers import Layer

__all__ = ["find_origins"]


def find_origins(layers: Iterable[Layer]) -> dict[str, str]:
    """Find where keys came from.

    Args:
        layers: that were loaded without a fault; the weakest first.

    Returns:
        Dotted key -> the file, the variable or the flag; a key that is not there has its default.
        Grants and programs are known by their names: ``grants.monitoring.addresses``.
    """
    origins: dict[str, str] = {}
    for layer in layers:
        for section, value in layer.values.items():
            for name, keys in _tables(section, value):
                _forget(origins, name)
                origins |= {f"{name}.{key}": _label(layer, section, f"{name}.{key}") for key in keys}
    return origins


def _tables(section: str, value: Any) -> Iterator[tuple[str, Iterable[str]]]:
    """List the tables of a section, each with its keys."""
    if section == "grants":
        yield from ((f"grants.{grant['name']}", grant) for grant in value)
    elif section == "programs":
        yield from ((f"programs.{name}", program) for name, program in value.items())
    else:
        yield section, value


def _forget(origins: dict[str, str], table: str) -> None:
    """Forget a grant or a program: one of the same name takes its place altogether."""
    if "." in table:
        for key in [key for key in origins if key.startswith(f"{table}.")]:
            del origins[key]


def _label(layer: Layer, section: str, key: str) -> str:
    names: Mapping[str, str] = layer.names
    return names.get(key) or layer.label(section)
