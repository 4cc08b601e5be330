"""Where settings come from: a file, the environment, flags; each enters as a layer of values."""

import os
import stat
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from trio_cmd.errors import SettingsError
from trio_cmd.escape import escape, quote

__all__ = [
    "DEFAULT_PATH",
    "FLAGS",
    "Layer",
    "from_allow_flags",
    "from_environment",
    "from_flags",
    "from_log_flags",
    "from_texts",
    "read_file",
]

DEFAULT_PATH = "/etc/trio-cmd.toml"
# A thousand grants and programs have a hundredth of it; whatever is larger is another file.
MAX_FILE_BYTES = 1 << 22


class Layer(NamedTuple):
    """Some settings and where they came from.

    Attributes:
        source: what a fault is told with: a path, or for single values a template of the key.
        values: nested tables as in the settings file.
        is_text: values are text to be read as their type.
        names: dotted path -> the flag or variable it came from.
    """

    source: str
    values: Mapping[str, Any]
    is_text: bool = False
    names: Mapping[str, str] = {}

    def label(self, key: str) -> str:
        """Say where a key came from."""
        return self.names.get(key, self.source)


FLAGS: Mapping[str, str] = {
    "host": "server.host",
    "port": "server.port",
    "unix-socket": "server.unix_socket",
    "max-clients": "server.max_clients",
    "log-format": "logging.format",
    "log-file": "logging.file",
    "root": "comphash.roots",
}
"""The everyday flags, and as ``TRIO_CMD_`` variables: name -> dotted path of its setting."""


def from_environment(environ: Mapping[str, str]) -> Layer:
    """Take the everyday settings from ``TRIO_CMD_`` variables; an empty one counts as not set."""
    variables = {"TRIO_CMD_" + flag.upper().replace("-", "_"): key for flag, key in FLAGS.items()}
    given = {variable: environ[variable] for variable in variables if environ.get(variable)}
    layer = from_texts({variables[variable]: (variable, text) for variable, text in given.items()})
    repeated = {
        **_logs_of_texts(_given(environ, "TRIO_CMD_LOG")),
        **_grants_of_texts(_given(environ, "TRIO_CMD_ALLOW")),
    }
    sources = {"logs": "TRIO_CMD_LOG", "grants": "TRIO_CMD_ALLOW"}
    return layer._replace(values={**layer.values, **repeated}, names={**layer.names, **sources})


def _given(environ: Mapping[str, str], variable: str) -> list[str]:
    return [environ[variable]] if environ.get(variable) else []


def from_flags(given: Mapping[str, str | list[str]]) -> Layer:
    """Take the everyday settings from flags: name without dashes -> text, or texts of a repeated one."""
    return from_texts({FLAGS[flag]: (f"--{flag}", text) for flag, text in given.items()})


def from_log_flags(given: Iterable[str]) -> Layer:
    """Take logs from ``--log`` flags: texts of the form NAME=PATH."""
    return Layer("--log", _logs_of_texts(given), is_text=True)


def _logs_of_texts(texts: Iterable[str]) -> Mapping[str, Any]:
    named = [text.partition("=") for text in texts]
    return {"logs": {name: {"file": path} for name, _, path in named}} if named else {}


def from_allow_flags(given: Iterable[str]) -> Layer:
    """Take a grant of all commands from ``--allow`` flags: texts of networks."""
    return Layer("--allow", _grants_of_texts(given))


def _grants_of_texts(networks: Iterable[str]) -> Mapping[str, Any]:
    addresses = list(networks)
    return {"grants": [{"name": "allow", "addresses": addresses, "commands": ["*"]}]} if addresses else {}


def from_texts(texts: Mapping[str, tuple[str, str | list[str]]]) -> Layer:
    """Make a layer of texts: dotted path -> (where it came from, text)."""
    values: dict[str, dict[str, str | list[str]]] = {}
    for path, (_, text) in texts.items():
        section, _, key = path.partition(".")
        values.setdefault(section, {})[key] = text
    return Layer("", values, is_text=True, names={path: name for path, (name, _) in texts.items()})


def read_file(path: str) -> Layer:
    """Read a settings file.

    Raises:
        SettingsError: it cannot be read, is no TOML, is too long for settings, or others than its owner
            and root may write it.
    """
    shown = escape(path)
    try:
        # O_NONBLOCK: a FIFO would wait for somebody to write settings into it.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise SettingsError([f"{shown}: not a regular file; name a settings file that can be read"])
            if mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise SettingsError(
                    [f"{shown}: others than its owner may write it; chmod go-w {quote(path)}"]
                )
            return Layer(shown, _parse(file.read(MAX_FILE_BYTES + 1)))
    except OSError as error:
        raise SettingsError([f"{shown}: {error.strerror}; name a settings file that can be read"]) from error
    except (ValueError, RecursionError) as error:  # also a number of 5,000 digits, or brackets without end
        raise SettingsError([f"{shown}: not TOML: {escape(str(error))}"]) from error


def _parse(data: bytes) -> dict[str, Any]:
    """Read the bytes of a settings file.

    Raises:
        ValueError: they are no TOML.
        RecursionError: they are nested without end.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"longer than {MAX_FILE_BYTES} bytes")
    return tomllib.loads(data.decode())
