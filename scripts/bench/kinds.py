"""The ways to do the job: ours and its peers, and how each is started."""

import getpass
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
STANDARD_OUTPUT = Path("/dev/stdout")
MAX_CLIENTS = 10_100
"""Ten thousand idle ones, and those beside them."""

XINETD = """service cmd
{{
    type = UNLISTED
    socket_type = stream
    protocol = tcp
    bind = 127.0.0.1
    port = {port}
    wait = no
    user = {user}
    server = {handler}
    server_args = {syslog} {record}
    instances = UNLIMITED
    per_source = UNLIMITED
    cps = 1000000 1
    log_type = FILE {record}.xinetd
    log_on_success = PID HOST EXIT DURATION
}}
"""


@dataclass(frozen=True)
class Place:
    """Where a server listens, what it shows and where it records.

    Attributes:
        port: of the loopback address, free.
        syslog: the file of ``lastlog``.
        record: the file of its events.
    """

    port: int
    syslog: Path
    record: Path


Command = Callable[[Place], list[str]]


@dataclass(frozen=True)
class Kind:
    """A way to do the job.

    Attributes:
        name: in tables.
        needs: a module, or a program with a slash before it, that must be there.
        command: how it is started.
        is_shell: it starts a shell for each client.
        folder: the checkout of ours that is meant; none: the one that is imported.
    """

    name: str
    needs: str
    command: Command
    is_shell: bool = False
    folder: str = ""

    @property
    def is_there(self) -> bool:
        """Whether it can be started here."""
        if self.needs.startswith("/"):
            return shutil.which(self.needs[1:], path=program_path()) is not None
        return importlib.util.find_spec(self.needs) is not None


def program_path() -> str:
    """Where programs are looked for, also those of administrators."""
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def python(program: str, *kind: str) -> Command:
    """Start one of our own peers."""
    return lambda place: [
        sys.executable,
        str(PEERS / program),
        *(str(place.port), str(place.syslog), str(place.record)),
        *kind,
    ]


def ours(place: Place) -> list[str]:
    """Start ours, as installed, with its defaults; idle clients need room."""
    options = {"--port": place.port, "--log-format": "json", "--max-clients": MAX_CLIENTS}
    options |= {"--log": f"syslog={place.syslog}"}
    if place.record != STANDARD_OUTPUT:
        options |= {"--log-file": place.record}
    words = [str(word) for option in options.items() for word in option]
    return [sys.executable, "-P", "-m", "trio_cmd", *words]


def socat(place: Place) -> list[str]:
    """Start a listener that forks, and runs the handler for each client."""
    listen = f"TCP-LISTEN:{place.port},bind=127.0.0.1,reuseaddr,fork,backlog=1024"
    return ["socat", listen, f"EXEC:{PEERS / 'handler.sh'} {place.syslog} {place.record}"]


def ncat(place: Place) -> list[str]:
    """Start a listener that keeps listening, and runs the handler for each client."""
    handler = f"{PEERS / 'handler.sh'} {place.syslog} {place.record}"
    return ["ncat", "-l", "-k", "--max-conns", "1000", "-e", handler, "127.0.0.1", str(place.port)]


def xinetd(place: Place) -> list[str]:
    """Start the super-server with one service, the handler, and none of its limits."""
    config = place.record.with_suffix(".conf")
    facts = {"port": place.port, "syslog": place.syslog, "record": place.record}
    config.write_text(XINETD.format(user=getpass.getuser(), handler=PEERS / "handler.sh", **facts))
    return ["xinetd", "-dontfork", "-f", str(config), "-pidfile", f"{place.record}.pid"]


OURS = "trio_cmd"
KINDS = {
    kind.name: kind
    for kind in (
        Kind(OURS, "trio_cmd", ours),
        Kind("Twisted", "twisted", python("twisted_server.py")),
        Kind("asyncio", "asyncio", python("asyncio_server.py")),
        Kind("uvloop", "uvloop", python("asyncio_server.py", "uvloop")),
        Kind("Trio, plain", "trio", python("trio_server.py")),
        Kind("socat", "/socat", socat, is_shell=True),
        Kind("ncat", "/ncat", ncat, is_shell=True),
        Kind("xinetd", "/xinetd", xinetd, is_shell=True),
    )
}
"""Name -> how it is started; the first is ours."""
