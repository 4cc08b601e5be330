"""The programs of a settings file: they become values, or every fault is told with its key."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_cmd import cli
from trio_cmd.commands import COMMANDS
from trio_cmd.errors import SettingsError
from trio_cmd.settings import Layer, Program, load, read_file

WriteSettings = Callable[[str], str]
NAME = "expected a name of a-z, 0-9 and -, beginning with a letter, at most 32"
SH = "[programs.x]\nargv = ['/bin/sh']\n"
WITH_A = "[programs.x]\nargv = ['/bin/sh', '{a}']\n"
CLASS = "expected one character class with + or {m,n}, or a list of words"


def faults(text: str, write_settings: WriteSettings) -> list[str]:
    path = write_settings(text)
    with pytest.raises(SettingsError) as caught:
        load([read_file(path)], ["ping"])
    return [fault.removeprefix(f"{path}: ") for fault in caught.value.faults]


def test_a_program_has_the_defaults_of_the_manual(write_settings: WriteSettings) -> None:
    """One line offers a program."""
    settings = load([read_file(write_settings('[programs.who]\nargv = ["/bin/sh"]'))])
    assert settings.programs == {
        "who": Program(argv=["/bin/sh"], summary="", seconds=60, max_output_bytes=1_048_576, arguments={})
    }


def test_a_program_is_what_its_table_says(write_settings: WriteSettings) -> None:
    """Every key of it, and the arguments in their order."""
    text = """
        [programs.unit]
        argv = ["/bin/sh", "-c", "{action}", "{name}", "{{name}}"]
        summary = "say how a unit is"
        seconds = 0.5
        max_output_bytes = 1
        [programs.unit.arguments]
        name = "[a-z]{1,9}"
        action = ["start", "stop"]
        """
    settings = load([read_file(write_settings(text)), Layer("later", {})], ["ping"])
    unit = settings.programs["unit"]
    assert (unit.summary, unit.seconds, unit.max_output_bytes) == ("say how a unit is", 0.5, 1)
    assert list(unit.arguments.items()) == [("name", "[a-z]{1,9}"), ("action", ["start", "stop"])]
    assert load([Layer("x", msgspec.to_builtins(settings))]) == settings


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("programs = 5", "programs: expected a table, [programs.NAME]"),
        ("[programs]\nx = 5", "programs.x: expected a table, [programs.x]"),
        ("[programs.X]\nargv = ['/bin/sh']", f"programs.X: {NAME}"),
        (f"[programs.{'x' * 33}]\nargv = ['/bin/sh']", f"programs.{'x' * 33}: {NAME}"),
        ('[programs."a\\u001b"]', f"programs.a\\x1b: {NAME}"),
        (
            "[programs.ping]\nargv = ['/bin/sh']",
            "programs.ping: this name is taken; choose another",
        ),
        ("[programs.x]", "programs.x: expected argv, the program and its arguments"),
        ("[programs.x]\nargv = []", "programs.x.argv: expected array of length >= 1"),
        ("[programs.x]\nargv = '/bin/sh'", "programs.x.argv: expected array, got str"),
        ("[programs.x]\nargv = ['/bin/sh', 5]", "programs.x.argv: expected str, got int - at $[1]"),
        ('[programs.x]\nargv = ["/bin/sh", "\\u0000"]', "programs.x.argv: expected text without NUL"),
        ("[programs.x]\nargv = ['sh']", "programs.x.argv: expected the absolute path of a program"),
        (
            "[programs.x]\nargv = ['/nope']",
            "programs.x.argv: no program can be run there: No such file or directory",
        ),
        (
            "[programs.x]\nargv = ['/bin/sh', '{a}']",
            "programs.x.argv: {a} has no pattern under arguments; the text is written {{a}}",
        ),
        (
            SH + "arguments = {a = '[a]+'}",
            "programs.x.argv: expected {a} for the argument of this name",
        ),
        (
            WITH_A + "arguments = {a = '.*'}",
            f"programs.x.arguments.a: {CLASS}",
        ),
        (WITH_A + "arguments = {a = []}", f"programs.x.arguments.a: {CLASS}"),
        (
            SH + "arguments = 5",
            "programs.x.arguments: expected a table, name = pattern",
        ),
        (
            SH + "second = 5",
            "programs.x.second: unknown key; did you mean seconds?",
        ),
        (SH + "seconds = 0", "programs.x.seconds: expected number >= 0.05"),
        (SH + "seconds = nan", "programs.x.seconds: expected number >= 0.05"),
        (
            SH + "max_output_bytes = 0",
            "programs.x.max_output_bytes: expected int >= 1",
        ),
        (
            SH + "max_output_bytes = 16777217",
            "programs.x.max_output_bytes: expected int <= 16777216",
        ),
        (SH + "summary = 5", "programs.x.summary: expected str, got int"),
        ("[program.x]\nargv = ['/bin/sh']", "program: unknown key; did you mean programs?"),
    ],
)
def test_each_kind_of_fault_is_told_with_its_key(
    text: str, fault: str, write_settings: WriteSettings
) -> None:
    """The start is refused, and the line says where to look and what to type."""
    assert faults(text, write_settings) == [fault]


def test_an_argument_has_a_plain_name(write_settings: WriteSettings) -> None:
    """It is told beside the place that can never have it."""
    told = faults("[programs.x]\nargv = ['/bin/sh', '{A}']\narguments = {A = '[a]+'}", write_settings)
    assert told[0] == "programs.x.arguments.A: expected a name of a-z, 0-9 and _, beginning with a letter"


def test_faults_of_all_programs_are_told_at_once(write_settings: WriteSettings) -> None:
    """The operator repairs the settings in one go."""
    text = """
        [programs.a]
        argv = ["a"]
        seconds = "x"
        [programs.B]
        [programs.c]
        argv = ["/nope"]
        [limits]
        x = 1
        """
    assert len(faults(text, write_settings)) == 5


@pytest.mark.parametrize("name", [name.decode() for name in COMMANDS])
def test_no_program_takes_the_name_of_a_command(
    name: str, write_settings: WriteSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    """``exit`` stays the way out, whatever the settings say."""
    path = write_settings(f'[programs.{name}]\nargv = ["/bin/sh"]')
    assert cli.main(["--check-config", "--config", path], {}) == 78
    told = f"{path}: programs.{name}: this name is taken; choose another\n"
    assert capsys.readouterr() == ("", told)


@pytest.mark.parametrize("change", ["missing", "not executable", "writable", "folder writable"])
@pytest.mark.parametrize("check", [["--check-config"], []])
def test_a_program_that_cannot_be_trusted_stops_the_start_and_the_check(
    change: str,
    check: list[str],
    tmp_path: Path,
    write_settings: WriteSettings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What the disk says is looked at before the first client comes."""
    folder = tmp_path / "bin"
    folder.mkdir(0o755)
    program = folder / "program"
    if change != "missing":
        program.touch()
        program.chmod({"not executable": 0o644, "writable": 0o775}.get(change, 0o755))
    folder.chmod(0o757 if change == "folder writable" else 0o755)
    path = write_settings(f'[programs.x]\nargv = ["{program}"]')
    assert cli.main([*check, "--config", path], {}) == 78
    assert capsys.readouterr().err.startswith(f"{path}: programs.x.argv: ")


VALUES = st.recursive(
    st.integers() | st.floats() | st.text() | st.sampled_from(["/bin/sh", "{a}", "[a]+"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(["argv", "arguments", "seconds", "summary", "max_output_bytes", "a"])


@example({"x": {"argv": [""], "arguments": {"\x1e": 0}}})
@given(st.dictionaries(st.sampled_from(["x", "ping", "X"]), st.dictionaries(KEYS, VALUES) | VALUES))
def test_any_values_are_programs_or_faults_and_never_a_traceback(table: dict[str, object]) -> None:
    """Whatever a file holds, the operator gets lines to act on."""
    told: list[str] = []
    try:
        load([Layer("file", {"programs": table})], ["ping"])
    except SettingsError as error:
        told = error.faults
    assert all(fault.startswith("file: programs") and len(fault.splitlines()) == 1 for fault in told)
