"""Every setting with type, unit, default and range: file, environment and flags enter, one value leaves.

A later layer wins: settings file < environment < flags.  All faults are found before any is
told: each key is converted by itself, because a whole-document conversion stops at the first.
"""

import difflib
import ipaddress
import os
import re
import stat
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct

from trio_cmd.arguments import ARGUMENT_NAME, ArgvTemplate, Pattern, check_argv, check_pattern
from trio_cmd.errors import SettingsError
from trio_cmd.escape import escape, quote
from trio_cmd.executables import check_executable

__all__ = [
    "ALGORITHMS",
    "DEFAULT_PATH",
    "FLAGS",
    "Comphash",
    "Layer",
    "Limits",
    "Log",
    "Logging",
    "Program",
    "ServerSettings",
    "Settings",
    "from_environment",
    "from_log_flags",
    "load",
    "read_file",
]

DEFAULT_PATH = "/etc/trio-cmd.toml"

Algorithm = Literal["sha1", "md5", "sha256", "sha512", "sha3_256", "blake2b"]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)

# Beyond these a slip of the pen is likelier than a wish.
_DAY = 86_400
_TIB = 1 << 40

Seconds = Annotated[float, Meta(ge=0.05, le=_DAY)]
CountOrAuto = Annotated[int, Meta(ge=0, le=1024)]
CountOrNone = Annotated[int, Meta(ge=0, le=1024)]
_DIGITS = re.compile("-?[0-9]{1,18}", re.ASCII)
NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")

AbsolutePath = Annotated[str, Meta(pattern=r"^/[^\0]*\Z")]
# What systemd allows in the name of a unit; no pattern of units, but all of them.
JournalUnit = Annotated[str, Meta(pattern=r"^(\*|[A-Za-z0-9:_.@\\-]{1,255})\Z")]


class ServerSettings(Struct, frozen=True, kw_only=True):
    """Where to listen, and how many clients at once."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 9999  # 0: any free one, said in the record
    max_clients: Annotated[int, Meta(ge=1, le=100_000)] = 100


class Limits(Struct, frozen=True, kw_only=True):
    """What one client, and all together, may take."""

    line_bytes: Annotated[int, Meta(ge=512, le=1 << 20)] = 8192
    request_seconds: Seconds = 30  # from a line's first byte to its end
    idle_seconds: Seconds = 300
    write_seconds: Seconds = 30  # without progress
    stop_seconds: Seconds = 10
    # Per client; at least 2, so that the line that ends a follow is read.
    pending_replies: Annotated[int, Meta(ge=2, le=1_000_000)] = 64
    pending_bytes: Annotated[int, Meta(ge=65536, le=_TIB)] = 4_194_304  # per client, not yet written
    total_pending_bytes: Annotated[int, Meta(ge=1 << 20, le=_TIB)] = 268_435_456  # of all clients
    running_per_client: Annotated[int, Meta(ge=1, le=1024)] = 4
    running_programs: CountOrAuto = 0  # children at once; 0: two per core
    waiting: Annotated[int, Meta(ge=0, le=1_000_000)] = 256  # work that waits, of all clients
    followers: CountOrNone = 16  # of all clients; one per connection, four per address


class Logging(Struct, frozen=True, kw_only=True):
    """How the record is written."""

    format: Literal["auto", "json", "twisted"] = "auto"
    queue_events: Annotated[int, Meta(ge=256, le=10_000_000)] = 10_000
    queue_bytes: Annotated[int, Meta(ge=1 << 20, le=_TIB)] = 16_777_216


class Log(Struct, frozen=True, kw_only=True):
    """One log that ``lastlog`` and ``follow`` offer: a file, or what the journal has of a unit."""

    file: AbsolutePath | None = None
    journal: JournalUnit | None = None  # "*": of all


class Comphash(Struct, frozen=True, kw_only=True):
    """Which files ``comphash`` may be asked for, and what it may cost."""

    roots: Annotated[tuple[str, ...], Meta(min_length=1)] = ("/",)  # absolute folders
    algorithm: Algorithm = "sha1"
    threads: CountOrAuto = 0  # 0: one per core, at most 4
    seconds: Seconds = 600
    max_bytes: Annotated[int, Meta(ge=1, le=1 << 60)] = 68_719_476_736


class Program(Struct, frozen=True, kw_only=True):
    """One program that is offered under its name."""

    argv: Annotated[list[str], Meta(min_length=1)]
    summary: str = ""
    seconds: Seconds = 60
    max_output_bytes: Annotated[int, Meta(ge=1, le=1 << 24)] = 1 << 20
    arguments: Mapping[str, Pattern] = {}  # in the order in which a client gives them


class Settings(Struct, frozen=True, kw_only=True):
    """All settings, checked."""

    server: ServerSettings = ServerSettings()
    limits: Limits = Limits()
    logging: Logging = Logging()
    logs: Mapping[str, Log] = {}  # the first is the default; empty: the host's system log
    comphash: Comphash = Comphash()
    programs: Mapping[str, Program] = {}


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
    "max-clients": "server.max_clients",
    "log-format": "logging.format",
    "root": "comphash.roots",
}
"""The everyday flags, and as ``TRIO_CMD_`` variables: name -> dotted path of its setting."""

_LOG_KINDS: Mapping[str, tuple[Any, str]] = {
    "file": (AbsolutePath, "an absolute path"),
    "journal": (JournalUnit, 'the name of a unit, or "*"'),
}
"""What a log may be: key -> its type, and what is said to be expected."""

_SECTIONS: Mapping[str, type[Struct]] = {
    "server": ServerSettings,
    "limits": Limits,
    "logging": Logging,
    "comphash": Comphash,
}


def load(layers: Iterable[Layer], commands: Collection[str] = ()) -> Settings:
    """Check the layers and put the later over the earlier.

    Args:
        layers: the weakest first.
        commands: names that are taken, so that no program can have them.

    Raises:
        SettingsError: with every fault of every layer, one line each.
    """
    faults: list[str] = []
    sections: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
    logs: dict[str, Log] = {}
    programs: Mapping[str, Program] = {}
    for layer in layers:
        for section, key, value in _entries(layer, faults):
            sections[section][key] = value
        stronger = _convert_logs(layer, faults)  # comes first: the first is the default
        logs = {**stronger, **{name: log for name, log in logs.items() if name not in stronger}}
        programs = _convert_programs(layer, commands, faults) or programs
    if faults:
        raise SettingsError(faults)
    built = {name: msgspec.convert(sections[name], kind) for name, kind in _SECTIONS.items()}
    return msgspec.convert({**built, "logs": logs, "programs": programs}, Settings)


def from_environment(environ: Mapping[str, str]) -> Layer:
    """Take the everyday settings from ``TRIO_CMD_`` variables; an empty one counts as not set."""
    variables = {"TRIO_CMD_" + flag.upper().replace("-", "_"): key for flag, key in FLAGS.items()}
    given = {variable: environ[variable] for variable in variables if environ.get(variable)}
    layer = from_texts({variables[variable]: (variable, text) for variable, text in given.items()})
    log = [environ["TRIO_CMD_LOG"]] if environ.get("TRIO_CMD_LOG") else []
    return layer._replace(source="TRIO_CMD_LOG", values={**layer.values, **_logs_of_texts(log)})


def from_flags(given: Mapping[str, str | list[str]]) -> Layer:
    """Take the everyday settings from flags: name without dashes -> text, or texts of a repeated one."""
    return from_texts({FLAGS[flag]: (f"--{flag}", text) for flag, text in given.items()})


def from_log_flags(given: Iterable[str]) -> Layer:
    """Take logs from ``--log`` flags: texts of the form NAME=PATH."""
    return Layer("--log", _logs_of_texts(given), is_text=True)


def _logs_of_texts(texts: Iterable[str]) -> Mapping[str, Any]:
    named = [text.partition("=") for text in texts]
    return {"logs": {name: {"file": path} for name, _, path in named}} if named else {}


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
        SettingsError: it cannot be read, is no TOML, or others than its owner and root may write it.
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
            return Layer(shown, tomllib.load(file))
    except OSError as error:
        raise SettingsError([f"{shown}: {error.strerror}; name a settings file that can be read"]) from error
    except (ValueError, RecursionError) as error:  # also a number of 5,000 digits, or brackets without end
        raise SettingsError([f"{shown}: not TOML: {escape(str(error))}"]) from error


def _entries(layer: Layer, faults: list[str]) -> Iterator[tuple[str, str, Any]]:
    """Convert the values of the fixed sections; yields (section, key, value)."""
    for section, table in layer.values.items():
        if section in {"logs", "programs"}:
            continue
        if section not in _SECTIONS:
            near = _nearest(section, [*_SECTIONS, "logs", "programs"])
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
            faults.append(f"{layer.source}: {escape(path)}: unknown key{_nearest(key, fields)}")
            continue
        # A variable names one root; the flag may be repeated.
        is_single = path == "comphash.roots" and layer.is_text and isinstance(value, str)
        try:
            converted = _convert([value] if is_single else value, fields[key], is_text=layer.is_text)
            if path == "server.host":
                _check_loopback(converted)
            if path == "comphash.roots":
                _check_roots(converted)
        except ValueError as error:
            faults.append(f"{layer.label(path)}: {path}: {error}")
        else:
            yield section, key, converted


def _convert_logs(layer: Layer, faults: list[str]) -> dict[str, Log]:
    table = layer.values.get("logs", {})
    if not isinstance(table, dict):
        faults.append(f"{layer.source}: logs: expected a table, [logs]")
        return {}
    logs: dict[str, Log] = {}
    for name, value in table.items():
        path = f"{layer.source}: logs.{escape(name)}"
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
            faults.append(f"{path}.{escape(key)}: unknown key{_nearest(key, _LOG_KINDS)}")
            continue
        kind, expected = _LOG_KINDS[key]
        try:
            converted[key] = _convert(text, kind)
        except ValueError:
            faults.append(f"{path}.{key}: expected {expected}")
    return {name: Log(**converted)} if converted else {}


def _convert_programs(layer: Layer, commands: Collection[str], faults: list[str]) -> dict[str, Program]:
    table = layer.values.get("programs", {})
    if not isinstance(table, dict):
        faults.append(f"{layer.source}: programs: expected a table, [programs.NAME]")
        return {}
    programs = {}
    for name, value in table.items():
        told = len(faults)
        path = f"{layer.source}: programs.{escape(name)}"
        if not NAME.fullmatch(name):
            faults.append(f"{path}: expected a name of a-z, 0-9 and -, beginning with a letter, at most 32")
        elif name in commands:
            faults.append(f"{path}: this is a built-in command; choose another name")
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
        f"{path}.{escape(key)}: unknown key{_nearest(key, fields)}" for key in table if key not in fields
    ]
    values: dict[str, Any] = {"argv": [], "arguments": {}}
    for key, value in table.items():
        if key == "arguments":
            values[key] = _convert_arguments(path, value, faults)
        elif key in fields:
            with _telling(f"{path}.{key}", faults):
                values[key] = _convert(value, fields[key])
    if values["argv"]:
        with _telling(f"{path}.argv", faults):
            _check_argv(values["argv"], values["arguments"])
    return values


def _convert_arguments(path: str, table: Any, faults: list[str]) -> dict[str, Pattern]:
    if not isinstance(table, dict):
        faults.append(f"{path}.arguments: expected a table, name = pattern")
        return {}
    for name, pattern in table.items():
        with _telling(f"{path}.arguments.{escape(name)}", faults):
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


@contextmanager
def _telling(path: str, faults: list[str]) -> Iterator[None]:
    """Tell what is raised inside with the key it is about."""
    try:
        yield
    except ValueError as error:
        faults.append(f"{path}: {error}")


_T = TypeVar("_T")


def _convert(value: Any, kind: type[_T] | Any, *, is_text: bool = False) -> _T:
    """Convert one value.

    Raises:
        ValueError: what was expected instead.
    """
    try:
        # Digits are the one form of a number as text; a lax conversion would take 1e3 for one as well.
        is_number = is_text and isinstance(value, str) and _DIGITS.fullmatch(value) and kind is not str
        return msgspec.convert(int(value) if is_number else value, kind)
    except msgspec.ValidationError as error:
        choices = get_args(kind) if getattr(kind, "__origin__", None) is Literal else ()
        expected = str(error).replace("`", "").replace("Expected float", "expected number").removesuffix(".0")
        expected = expected.removesuffix(", got str") if is_text else expected
        raise ValueError(
            "expected " + " or ".join(choices) if choices else expected[0].lower() + expected[1:]
        ) from error


def _check_loopback(host: str) -> None:
    """Let only this host in: nobody can be named yet who might come from another."""
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError("expected a loopback address: 127.0.0.1, ::1 or localhost")


def _check_roots(roots: Iterable[str]) -> None:
    """Let only folders be roots whose meaning does not depend on where the server is started."""
    if not all(root.startswith("/") and "\0" not in root for root in roots):
        raise ValueError("expected absolute paths of folders")


def _nearest(key: str, known: Iterable[str]) -> str:
    """Name the key that was probably meant."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
