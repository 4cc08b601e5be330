"""Old settings and new ones enter, what differs leaves: dotted keys, and what waits for a restart.

A listener is bound once, at the start.  So new settings are taken with the listeners of the old,
and whatever they expose is judged by where the server listens, not by where it is said to.  The
file of the record stays as well: whoever reads it has its name.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from trio_cmd.settings.values import Settings

__all__ = ["changed_keys", "keep_listeners"]

# What is opened once, at the start: section -> keys.
_LISTENERS: Mapping[str, Sequence[str]] = {
    "server": ("host", "port", "unix_socket"),
    "logging": ("file",),
    "metrics": ("port", "host"),
}


def keep_listeners(wanted: Settings, in_force: Settings) -> Settings:
    """Give the wanted settings with the listeners, and the file of the record, that are in force."""
    kept = {
        section: msgspec.structs.replace(
            getattr(wanted, section), **{key: getattr(getattr(in_force, section), key) for key in keys}
        )
        for section, keys in _LISTENERS.items()
    }
    return msgspec.structs.replace(wanted, **kept)


def changed_keys(old: Settings, new: Settings) -> list[str]:
    """Name what differs: ``limits.waiting``, ``grants.monitoring``, ``programs.uptime``.

    The order of grants means nothing; that of the logs does, the first is the default: ``logs``.
    """
    before, after = dict(_entries(old)), dict(_entries(new))
    keys = [*before, *(key for key in after if key not in before)]
    changed = [key for key in keys if before.get(key) != after.get(key)]
    if next(iter(old.logs), None) != next(iter(new.logs), None) and old.logs.keys() == new.logs.keys():
        changed.append("logs")
    return changed


def _entries(settings: Settings) -> Iterator[tuple[str, Any]]:
    """List what is compared: dotted key -> value."""
    for section in settings.__struct_fields__:
        value = getattr(settings, section)
        if section == "grants":
            yield from ((f"grants.{grant.name}", grant) for grant in value)
        elif section == "programs":  # of arguments the order counts: so a client gives them
            yield from (
                (f"programs.{name}", (program, tuple(program.arguments))) for name, program in value.items()
            )
        elif isinstance(value, Mapping):
            yield from ((f"{section}.{name}", entry) for name, entry in value.items())
        else:
            yield from ((f"{section}.{key}", getattr(value, key)) for key in value.__struct_fields__)
