"""Every conversation printed in the documents is held with the server, and the manual is complete."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from conftest import StartProgram
from trio_cmd import errors
from trio_cmd.commands import COMMANDS
from trio_cmd.wire.messages import NOTICES

ROOT = Path(__file__).parent.parent
MANUAL = ROOT / "docs" / "protocol.md"

HOSTNAME = "lab\n"
SYSLOG = """\
Aug 29 15:02:03 lab CRON[4945]: (CRON) error (grandchild #4947 failed with exit status 1)
Aug 29 15:05:01 lab CRON[4999]: pam_unix(cron:session): session opened for user root
"""
AUTH = "Aug 29 15:04:00 lab sshd[411]: Server listening on 0.0.0.0 port 22.\n"

UPTIME = "#!/bin/sh\necho ' 15:13:58 up 12 days,  3:04,  1 user,  load average: 0.08, 0.03, 0.01'\n"
UNIT = """\
#!/bin/sh
[ "$1" = ssh ] || exec echo "$1.service: active"
echo "$1.service: failed"
exit 3
"""
PROGRAMS = """
[programs.uptime]
argv = ["{folder}/uptime"]
[programs.unit]
argv = ["{folder}/unit", "{{name}}"]
summary = "say how a unit is"
[programs.unit.arguments]
name = "[a-z0-9@.-]+"
"""

BLOCK = re.compile(r"^```transcript\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def transcripts() -> list[ParameterSet]:
    found = []
    for document in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]):
        text = document.read_text()
        for block in BLOCK.finditer(text):
            line = text.count("\n", 0, block.start()) + 1
            found.append(pytest.param(block[1], id=f"{document.name}:{line}"))
    return found


def settle(text: str) -> str:
    """Replace what differs from run to run."""
    text = re.sub(r'"seconds":[0-9.e-]+', '"seconds":S', text)
    text = re.sub(r"^settings: [0-9a-f]{12}$", "settings: DIGEST", text, flags=re.MULTILINE)
    return re.sub(r"^((?!version)[a-z_-]+): [0-9]+$", r"\1: N", text, flags=re.MULTILINE)


def offer_programs(folder: Path) -> str:
    """Write the programs of the manual; returns their settings."""
    folder.chmod(0o755)
    for name, script in (("uptime", UPTIME), ("unit", UNIT)):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return PROGRAMS.format(folder=folder)


@pytest.mark.parametrize("transcript", transcripts())
def test_a_printed_conversation_is_what_the_server_says(
    transcript: str, start: StartProgram, write_settings: Callable[[str], str], tmp_path: Path
) -> None:
    """Whoever reads the manual can rely on it to the letter."""
    hostname, syslog, auth = tmp_path / "hostname", tmp_path / "syslog", tmp_path / "auth"
    hostname.write_text(HOSTNAME)
    syslog.write_text(SYSLOG)
    auth.write_text(AUTH)
    logs = f'[logs]\nsyslog = {{ file = "{syslog}" }}\nauth = {{ file = "{auth}" }}\n'
    # Where none is asked for none is offered, so that help shows what every server has.
    programs = offer_programs(tmp_path) if "> uptime" in transcript else ""
    config = write_settings(logs + programs)
    lines = transcript.splitlines()
    asked = "".join(line[2:] + "\n" for line in lines if line.startswith("> "))
    expected = "".join(line[2:] + "\n" for line in lines if line.startswith("< "))
    answer = start("--config", config).ask(asked.replace("/etc/hostname", str(hostname)).encode()).decode()
    assert settle(answer.replace(str(hostname), "/etc/hostname")) == settle(expected)


@pytest.mark.parametrize("name", [name.decode() for name in COMMANDS])
def test_every_command_has_its_entry_in_the_manual(name: str) -> None:
    """A command nobody can look up might as well not exist."""
    headings = re.findall(r"^### (.*)$", MANUAL.read_text(), re.MULTILINE)
    usages = [usage for heading in headings for usage in re.findall(r"`(.*?)`", heading)]
    assert COMMANDS[name.encode()].usage in usages


def test_every_error_code_is_in_the_manual() -> None:
    """A program that meets a code can be written from the manual alone."""
    listed = set(
        re.findall(r"^\| `([a-z-]+)` \| the (?:client|host|server)'s ", MANUAL.read_text(), re.MULTILINE)
    )
    kinds = [getattr(errors, name) for name in errors.__all__]
    codes = {kind.code for kind in kinds if isinstance(kind, type) and hasattr(kind, "code")}
    assert listed == codes


def test_every_reason_to_end_is_in_the_manual() -> None:
    """An operator who reads a reason in the record can look it up."""
    chapter = MANUAL.read_text().split("## How a connection ends")[1].split("\n## ")[0]
    listed = set(re.findall(r"`([a-z-]+)`(?=[^|]* \|)", chapter))
    assert set(NOTICES) | {"closed", "reset", "slow-reader", "wrong-protocol", "line-too-long"} <= listed
    for reason, notice in NOTICES.items():
        shown = notice.format(seconds={"idle": 300, "slow-line": 30}.get(reason, 0), address="10.0.0.1")
        assert not shown or f"`{shown}`" in chapter
