"""The folder in which a soak takes place: files with known digests, logs with known lines, settings."""

import hashlib
import os
import random
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import trio
import trustme

__all__ = ["BIG_LINES", "BROKEN", "TOKEN", "VARIANTS", "WORDS", "Place", "number_of"]

ALGORITHMS = ("sha1", "md5", "sha256", "sha512", "sha3_256", "blake2b")
FILES = 24
LARGE_BYTES = 64 << 20
BIG_LINES = 9_000
STEADY_LINES = 200
GROW_SECONDS = 0.05
TOKEN = "tcmd_" + "s" * 43
WORDS = ("alpha", "beta-2", "x" * 32)

SETTINGS = """
[server]
max_clients = {max_clients}
unix_socket = "{folder}/socket"
[limits]
idle_seconds = 4
request_seconds = 3
write_seconds = 3
{limits}
[logs]
steady = {{ file = "{folder}/logs/steady" }}
growing = {{ file = "{folder}/logs/growing" }}
big = {{ file = "{folder}/logs/big" }}
missing = {{ file = "{folder}/logs/missing" }}
[comphash]
roots = ["{folder}/files"]
{comphash}
[programs.say]
argv = ["/bin/echo", "said {{word}}"]
[programs.say.arguments]
word = "[a-z0-9-]{{1,32}}"
[programs.fail]
argv = ["/bin/sh", "-c", "echo before; exit 3"]
[programs.hang]
argv = ["/bin/sleep", "60"]
seconds = 1
[programs.stay]
argv = ["/bin/sh", "-c", "trap '' TERM; sleep 60 & setsid sleep 60 & echo gone"]
[programs.print]
argv = ["/usr/bin/yes"]
max_output_bytes = 65536
{programs}
[[grants]]
name = "here"
addresses = ["127.0.0.1", "unix"]
commands = ["*"]
[[grants]]
name = "guessed"
addresses = ["127.0.0.4"]
token_sha256 = "{guessed}"
commands = ["*"]
[[grants]]
name = "shown"
addresses = ["127.0.0.2"]
token_sha256 = "{shown}"
commands = ["*"]
{grants}
{tls}
"""

TLS = """
[tls]
certificate = "{folder}/server.pem"
key = "{folder}/server.key"
"""
WAVERING = '[[grants]]\nname = "wavering"\naddresses = ["127.0.0.3"]\ncommands = ["ping"]\n'
EXTRA = '[programs.extra]\nargv = ["/bin/echo", "extra"]\n'

VARIANTS: tuple[dict[str, str], ...] = (
    {},
    {"grants": WAVERING},
    {"programs": EXTRA, "grants": WAVERING},
    {"limits": "running_per_client = 2\npending_replies = 8\nwaiting = 40"},
    {"limits": "running_programs = 1\nfollowers = 2", "comphash": 'algorithm = "sha256"'},
    {"max_clients": "30", "comphash": "threads = 1"},
)
"""What differs from the first settings; all are good."""

BROKEN = (
    "= 5",
    "[limits]\nwaiting = 'many'\n",
    "[comphash]\nroots = ['/nowhere']\n",
    "[server]\nhost = '*'\n",
    "[programs.say]\nargv = ['/no/such/program']\n",
)
"""Settings that are refused."""


@dataclass(slots=True)
class Place:
    """What is there, and what is known of it.

    Attributes:
        folder: of its own, and short enough for the path of a unix socket.
        is_secured: whether the port speaks TLS.
        context: whom its clients believe; ``None``: they speak in plain text.
        digests: path -> algorithm -> digest.
        sizes: path -> bytes.
        grown: how many lines the growing log has.
    """

    folder: Path
    is_secured: bool = False
    context: ssl.SSLContext | None = None
    digests: dict[bytes, dict[str, str]] = field(default_factory=dict)
    sizes: dict[bytes, int] = field(default_factory=dict)
    grown: int = 0

    def furnish(self, seed: str) -> None:
        """Make all files."""
        rng = random.Random(f"{seed} files")
        for name in ("files", "logs"):
            (self.folder / name).mkdir()
        for number in range(FILES):
            size = rng.choice((0, 1, 300, 5_000, 65_536, 65_537, 200_000))
            self._add(self.folder / "files" / f"file {number}", rng.randbytes(size))
        self._add(self.large, b"", LARGE_BYTES)
        os.mkfifo(self.folder / "files" / "fifo")
        (self.folder / "files" / "folder").mkdir()
        (self.folder / "files" / "away").symlink_to("/etc/hostname")
        for name, lines in (("steady", self.steady()), ("big", self.big())):
            (self.folder / "logs" / name).write_text("".join(f"{line}\n" for line in lines))
        (self.folder / "logs" / "growing").touch()
        if self.is_secured:
            self._certify()
        self.write(self.settings({}))

    @property
    def large(self) -> Path:
        """A file that takes a while."""
        return self.folder / "files" / "large"

    @property
    def small(self) -> list[bytes]:
        """The paths of the small files."""
        return [path for path, size in self.sizes.items() if size < LARGE_BYTES]

    @staticmethod
    def steady() -> list[str]:
        """Give the lines of the log that does not change."""
        return [f"Nov 20 15:02:03 lab steady[{n}]: line {n}" for n in range(STEADY_LINES)]

    @staticmethod
    def big() -> list[str]:
        """Give the lines of the log that is larger than one answer."""
        return [f"Nov 20 15:02:03 lab big[1]: line {n:06} {'=' * 110}" for n in range(BIG_LINES)]

    def settings(self, variant: dict[str, str]) -> str:
        """Write settings."""
        parts = {"max_clients": "60", "limits": "", "comphash": "", "programs": "", "grants": "", **variant}
        digests = {
            "shown": hashlib.sha256(TOKEN.encode()).hexdigest(),
            "guessed": hashlib.sha256(b"nobody knows").hexdigest(),
        }
        tls = TLS.format(folder=self.folder) if self.is_secured else ""
        return SETTINGS.format(folder=self.folder, tls=tls, **digests, **parts)

    def write(self, text: str, mode: int = 0o600) -> None:
        """Put settings in place of the old ones, all at once."""
        new = self.folder / "settings.new"
        new.write_text(text)
        new.chmod(mode)
        new.replace(self.config)

    @property
    def config(self) -> Path:
        """The settings file."""
        return self.folder / "settings.toml"

    async def grow(self) -> None:
        """Write to the growing log, a line now and then, until cancelled."""
        with (self.folder / "logs" / "growing").open("ab", buffering=0) as log:
            while True:
                log.write(f"grown line {self.grown + 1}\n".encode())
                self.grown += 1
                await trio.sleep(GROW_SECONDS)

    def _certify(self) -> None:
        """Make a certificate, and those believe it who come."""
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        (self.folder / "server.pem").write_bytes(b"".join(p.bytes() for p in issued.cert_chain_pems))
        (self.folder / "server.key").write_bytes(issued.private_key_pem.bytes())
        (self.folder / "server.key").chmod(0o600)
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)

    def _add(self, path: Path, data: bytes, size: int = 0) -> None:
        path.write_bytes(data)
        if size:
            os.truncate(path, size)
        whole = path.read_bytes()
        self.digests[bytes(path)] = {name: hashlib.new(name, whole).hexdigest() for name in ALGORITHMS}
        self.sizes[bytes(path)] = len(whole)


def number_of(line: str) -> int:
    """Read the number of a line of the growing log."""
    return int(line.removeprefix("grown line "))
