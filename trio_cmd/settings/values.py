"""Every setting with type, unit, default and range."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

from trio_cmd.arguments import Pattern

__all__ = [
    "ALGORITHMS",
    "NAME",
    "AbsolutePath",
    "Comphash",
    "Grant",
    "JournalUnit",
    "Limits",
    "Log",
    "Logging",
    "Metrics",
    "Program",
    "ServerSettings",
    "Settings",
    "Tls",
]

Algorithm = Literal["sha1", "md5", "sha256", "sha512", "sha3_256", "blake2b"]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)

# Beyond these a slip of the pen is likelier than a wish.
_DAY = 86_400
_TIB = 1 << 40

Seconds = Annotated[float, Meta(ge=0.05, le=_DAY)]
CountOrAuto = Annotated[int, Meta(ge=0, le=1024)]
CountOrNone = Annotated[int, Meta(ge=0, le=1024)]
NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")

AbsolutePath = Annotated[str, Meta(pattern=r"^/[^\0]*\Z")]
# What systemd allows in the name of a unit; no pattern of units, but all of them.
JournalUnit = Annotated[str, Meta(pattern=r"^(\*|[A-Za-z0-9:_.@\\-]{1,255})\Z")]


class ServerSettings(Struct, frozen=True, kw_only=True):
    """Where to listen, and how many clients at once."""

    host: str = "127.0.0.1"  # "*": all addresses of both families; "": no TCP
    port: Annotated[int, Meta(ge=0, le=65535)] = 9999  # 0: any free one, said in the record
    unix_socket: str = ""  # a path; also listen there
    max_clients: Annotated[int, Meta(ge=1, le=100_000)] = 100
    max_clients_per_address: Annotated[int, Meta(ge=1, le=100_000)] = 10  # loopback not counted


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
    schema: Literal["plain", "ecs"] = "plain"  # of the JSON
    file: str = ""  # an absolute path; empty: standard output
    queue_events: Annotated[int, Meta(ge=256, le=10_000_000)] = 10_000
    queue_bytes: Annotated[int, Meta(ge=1 << 20, le=_TIB)] = 16_777_216
    when_full: Literal["drop", "hold"] = "drop"  # lose records, or let clients wait


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


class Grant(Struct, frozen=True, kw_only=True):
    """What certain clients may ask; every condition that is set must hold."""

    name: Annotated[str, Meta(pattern=f"^{NAME.pattern}\\Z")]
    addresses: tuple[str, ...] = ()  # networks, and the word "unix"; none: loopback and unix
    token_sha256: Annotated[str, Meta(pattern=r"^([0-9a-fA-F]{64})?\Z")] = ""  # of the token `auth` needs
    certificate: str = ""  # a DNS name or URI of the verified client certificate
    commands: Annotated[tuple[str, ...], Meta(min_length=1)]  # or "*": every command


class Tls(Struct, frozen=True, kw_only=True):
    """What the TCP listener shows its clients; without a certificate it speaks in plain text."""

    certificate: str = ""  # paths of PEM files
    key: str = ""
    client_ca: str = ""  # clients must have a certificate of it


class Metrics(Struct, frozen=True, kw_only=True):
    """Where Prometheus may scrape."""

    port: Annotated[int, Meta(ge=0, le=65535)] = 0  # 0: off
    host: str = "127.0.0.1"


class Settings(Struct, frozen=True, kw_only=True):
    """All settings, checked."""

    server: ServerSettings = ServerSettings()
    limits: Limits = Limits()
    logging: Logging = Logging()
    logs: Mapping[str, Log] = {}  # the first is the default; empty: the host's system log
    comphash: Comphash = Comphash()
    programs: Mapping[str, Program] = {}
    grants: tuple[Grant, ...] = ()  # none: loopback and the unix socket may run everything
    tls: Tls = Tls()
    metrics: Metrics = Metrics()
