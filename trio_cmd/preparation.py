"""Flags, environment and files enter; settings leave, and what was read and opened for them."""

import argparse
import os
from collections.abc import Mapping, Sequence

from trio_cmd.commands import COMMANDS
from trio_cmd.errors import SettingsError
from trio_cmd.server.epoch import Prepared
from trio_cmd.server.inherited import Inherited, settings_of
from trio_cmd.server.tls import read_certificate
from trio_cmd.settings import (
    DEFAULT_PATH,
    FLAGS,
    Layer,
    Settings,
    find_origins,
    from_allow_flags,
    from_environment,
    from_flags,
    from_log_flags,
    is_exposed,
    keep_listeners,
    load,
    read_file,
    write_toml,
)
from trio_cmd.work.roots import Roots

__all__ = ["describe_settings", "load_settings", "prepare"]

# Names that no program can have.
_TAKEN = [name.decode() for name in COMMANDS]


def prepare(
    args: argparse.Namespace,
    environ: Mapping[str, str],
    sockets: Sequence[Inherited] = (),
    in_force: Settings | None = None,
) -> Prepared:
    """Collect the settings, and read and open what they name; it may wait for a disk.

    Args:
        args: the flags.
        environ: the environment.
        sockets: to listen on instead of those of the settings.
        in_force: the settings of a server that runs.

    Raises:
        SettingsError: what is wrong.
    """
    settings, _ = load_settings(args, environ, sockets, in_force)
    tls = read_certificate(settings.tls)
    return Prepared(settings, Roots(settings.comphash.roots), tls)


def load_settings(
    args: argparse.Namespace,
    environ: Mapping[str, str],
    sockets: Sequence[Inherited] = (),
    in_force: Settings | None = None,
) -> tuple[Settings, list[Layer]]:
    """Collect the settings; returns also the layers they are made of.

    Raises:
        SettingsError: with the faults of all places, also when the file cannot be read.
    """
    layers, faults = _collect_layers(args, environ, sockets)
    try:
        settings = load(layers, _TAKEN, in_force)
        _check_user(settings, is_root_allowed=args.allow_root)
        if in_force is not None:
            _check_user(keep_listeners(settings, in_force), is_root_allowed=args.allow_root)
    except SettingsError as error:
        faults += error.faults
    if faults:
        raise SettingsError(faults)
    return settings, layers


def _collect_layers(
    args: argparse.Namespace, environ: Mapping[str, str], sockets: Sequence[Inherited]
) -> tuple[list[Layer], list[str]]:
    """Read the settings of all places, the strongest last; returns also why the file cannot be read."""
    given = {flag: vars(args)[flag.replace("-", "_")] for flag in FLAGS}
    flags = {flag: text for flag, text in given.items() if text is not None}
    path = (
        args.config
        or environ.get("TRIO_CMD_CONFIG")
        or (DEFAULT_PATH if os.path.exists(DEFAULT_PATH) else None)
    )
    layers: list[Layer] = []
    faults: list[str] = []
    try:
        layers += [read_file(path)] if path else []
    except SettingsError as error:
        faults += error.faults
    repeated = from_log_flags(args.log), from_allow_flags(args.allow)
    strongest = [settings_of(sockets)] if sockets else []
    return [*layers, from_environment(environ), from_flags(flags), *repeated, *strongest], faults


def describe_settings(
    args: argparse.Namespace, environ: Mapping[str, str], sockets: Sequence[Inherited]
) -> bytes:
    """Write the settings down, each with where it came from.

    Raises:
        SettingsError: what is wrong with them.
    """
    settings, layers = load_settings(args, environ, sockets)
    return write_toml(settings, find_origins(layers))


def _check_user(settings: Settings, *, is_root_allowed: bool) -> None:
    """Do not let other hosts ask a server that may read everything, unless that is wanted.

    Raises:
        SettingsError: it is not.
    """
    if os.geteuid() == 0 and is_exposed(settings) and not is_root_allowed:
        where = f"server.host: {settings.server.host} can be reached from other hosts, and this is root"
        raise SettingsError([f"{where}; start as another user, or say --allow-root"])
