"""The units of systemd in ``deploy/``: judged by systemd itself, and the server run as they confine it."""

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import StartProgram
from program import PATIENCE_SECONDS, read_all
from test_systemd import WATCHDOG, Manager

WriteSettings = Callable[[str], str]
Unit = dict[str, list[str]]

DEPLOY = Path(__file__).parent.parent / "deploy"
MAX_EXPOSURE = 20  # tenths
SERVER = "/opt/trio-cmd/bin/trio-cmd"
# Each of these puts something else in the place of files that an operator may ask for.
HIDING = {
    *("PrivateTmp", "PrivateDevices", "PrivateUsers", "RootDirectory", "RootImage", "InaccessiblePaths"),
    *("TemporaryFileSystem", "ProtectProc", "ProcSubset", "ProtectKernelModules", "NoExecPaths"),
}


def read_unit(name: str) -> Unit:
    """Read a unit: key -> its values, of all sections."""
    unit: Unit = {}
    for line in (DEPLOY / name).read_text().splitlines():
        key, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            unit.setdefault(key, []).append(value)
    return unit


def analyze(*args: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)


@pytest.mark.needs("systemd-analyze")
def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    """An unknown key or a wrong value would be passed over in silence when the service starts."""
    program = tmp_path / "trio-cmd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    units = [tmp_path / "trio-cmd.service", tmp_path / "trio-cmd.socket"]
    for unit in units:
        unit.write_text((DEPLOY / unit.name).read_text().replace(SERVER, str(program)))
    done = analyze("--man=no", "verify", *map(str, units))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.needs("systemd-analyze")
def test_service_is_little_exposed() -> None:
    """Whoever takes the server over by a fault of ours can do next to nothing to the host."""
    unit = str(DEPLOY / "trio-cmd.service")
    done = analyze("security", "--offline=true", f"--threshold={MAX_EXPOSURE}", unit)
    assert done.returncode == 0, done.stdout[-200:]
    assert "Overall exposure level for trio-cmd.service:" in done.stdout


def test_service_hides_no_file() -> None:
    """What an operator asks for is the host's own file, not one of an empty folder over it."""
    service = read_unit("trio-cmd.service")
    assert not HIDING & service.keys()
    assert service["ProtectHome"] == ["read-only"]
    # DynamicUser= implies PrivateTmp=; a bind mount of the same path wins over it.
    assert service["DynamicUser"] == ["yes"]
    assert service["BindReadOnlyPaths"] == ["/tmp /var/tmp"]


def test_service_is_one_that_systemd_252_knows_and_watches() -> None:
    """It is started, reloaded, watched and ended as the server expects it."""
    service = read_unit("trio-cmd.service")
    assert service["Type"] == ["notify"]
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert service["KillMode"] == ["mixed"]
    assert int(service["TimeoutStopSec"][0]) > 12
    assert service["Restart"] == ["on-failure"]
    assert int(service["WatchdogSec"][0]) > 0


def test_socket_is_not_in_the_folder_that_goes_with_the_service() -> None:
    """A restart of the service removes its run-time folder; the socket must outlive it."""
    listen = read_unit("trio-cmd.socket")
    folder = read_unit("trio-cmd.service")["RuntimeDirectory"][0]
    assert listen["ListenStream"] == ["127.0.0.1:9999", "/run/trio-cmd.socket"]
    assert not any(place.startswith(f"/run/{folder}/") for place in listen["ListenStream"])
    assert "Accept" not in listen


# The server under the filter of the unit

# What systemd does with SystemCallFilter=, MemoryDenyWriteExecute=, RestrictSUIDSGID= (which hides
# openat2), RestrictNamespaces= (which hides clone3) and RestrictAddressFamilies=; but what is not
# allowed ends the process here, so that no test can miss it.
_CONFINE = """
import ctypes, os, sys
lib = ctypes.CDLL("libseccomp.so.2")
lib.seccomp_init.restype = ctypes.c_void_p
KILL, ALLOW, ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97
LESS, AT_LEAST, MASKED = 2, 5, 7

class Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]

def make(default):
    return ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(default)))

def rule(context, action, name, *compares):
    number = lib.seccomp_syscall_resolve_name(name.encode())
    array = (Compare * len(compares))(*compares)
    done = lib.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(compares), array)
    assert done == 0 or number < 0, (name, done)

filters = make(ALLOW), make(KILL)
refine, allow = filters
WRITE_EXEC, EXEC = 6, 4
rule(refine, KILL, "mmap", Compare(2, MASKED, WRITE_EXEC, WRITE_EXEC))
rule(refine, KILL, "mprotect", Compare(2, MASKED, EXEC, EXEC))
rule(refine, ERRNO | ENOSYS, "openat2")
rule(refine, ERRNO | ENOSYS, "clone3")
families = sorted(map(int, sys.argv[2].split(",")))
for family in range(64):
    if family not in families:
        rule(refine, ERRNO | EAFNOSUPPORT, "socket", Compare(0, 4, family, 0))
for name in sys.argv[1].split(","):
    rule(allow, ALLOW, name)
for context in filters:
    assert lib.seccomp_load(context) == 0
os.execv(sys.argv[3], sys.argv[3:])
"""


def read_call_sets() -> dict[str, set[str]]:
    """Read the sets of system calls from systemd: name -> members, sets among them."""
    sets: dict[str, set[str]] = {}
    for line in analyze("syscall-filter").stdout.splitlines():
        if line.startswith("@"):
            members = sets.setdefault(line, set())
        elif line.startswith("    ") and not line.lstrip().startswith("#"):
            members.add(line.strip())
    return sets


def expand(name: str, sets: dict[str, set[str]]) -> set[str]:
    """Give the system calls of a set, or the one that has this name."""
    if not name.startswith("@"):
        return {name}
    return set().union(*(expand(member, sets) for member in sets[name]))


def allowed_calls(filters: list[str]) -> set[str]:
    """Give what the lines of SystemCallFilter= leave; those with ``~`` take away."""
    sets = read_call_sets()
    allowed = expand("@default", sets)  # always implied
    for text in filters:
        named = set().union(*(expand(name, sets) for name in text.removeprefix("~").split()))
        allowed = allowed - named if text.startswith("~") else allowed | named
    return allowed


@pytest.mark.needs("systemd-analyze", "setpriv")
def test_server_works_under_the_filter_of_its_unit(
    start: StartProgram, write_settings: WriteSettings, log_file: Path, socket_path: str
) -> None:
    """Nothing the server or a usual program does is forbidden by the sandbox it is shipped with."""
    service = read_unit("trio-cmd.service")
    calls = ",".join(sorted(allowed_calls(service["SystemCallFilter"])))
    families = ",".join(str(int(getattr(socket, it))) for it in service["RestrictAddressFamilies"][0].split())
    manager = Manager(f"{socket_path}.notify")
    with manager.socket:
        program = start(
            *("--log", f"app={log_file}", "--unix-socket", socket_path, "--host", "localhost"),
            *("--config", write_settings('[programs.list]\nargv = ["/bin/ls", "-l", "/"]\n')),
            prefix=(
                *("setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
                *(sys.executable, "-I", "-S", "-c", _CONFINE, calls, families),
            ),
            env={"NOTIFY_SOCKET": f"{socket_path}.notify", "WATCHDOG_USEC": "200000"},
        )
        assert manager.hear().startswith("READY=1")
        assert "Seccomp_filters:\t2\n" in Path(f"/proc/{program.pid}/status").read_text()
        asked = b"lastlog 1\ncomphash /etc/hostname\nlist\nstatus\nauth x\nformat json\nfollow\n"
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE_SECONDS)
            client.connect(socket_path)
            client.sendall(asked)
            said = b""
            while b"Begin follow" not in said and b'"format"' not in said:
                said += client.recv(1 << 16)
            client.sendall(b"\nexit\n")
            said += read_all(client)
        assert b"Begin list\n" in said
        assert b"File hash is : " in said
        assert b"line 19" in said
        assert said.count(b"An error occured : ") == 1  # the token is wrong
        assert b'"command":"follow","ok":true' in said
        assert program.ask(b"ping\n") == b"pong\n"
        manager.hear_until(WATCHDOG)
        assert program.stop() == 0
    faults = [record for record in program.rest() if record["level"] == "error"]
    assert faults == []
