"""The tables of the manual of operations say what the program has."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import NODEFAULT, inspect

from trio_cmd import serving
from trio_cmd.records.events import EVENTS
from trio_cmd.records.sink import SinkStatistics
from trio_cmd.server import signals
from trio_cmd.server.exposition import Exposition
from trio_cmd.server.statistics import LastReload, Statistics
from trio_cmd.server.tally import Tally
from trio_cmd.server.workshop import WorkStatistics
from trio_cmd.settings import Settings
from trio_cmd.work.sharing import SharingStatistics

MANUAL = Path(__file__).parent.parent / "docs" / "operations.md"

Row = tuple[str, ...]


def table(first_cell: str) -> list[Row]:
    """Read the rows of the table of the manual whose head begins with a cell."""
    lines = iter(MANUAL.read_text().splitlines())
    while not next(lines).startswith(f"| {first_cell} |"):
        pass
    next(lines)
    rows: list[Row] = []
    for line in lines:
        if not line.startswith("|"):
            return rows
        rows.append(tuple(cell.strip() for cell in line[1:-1].split("|")))
    raise AssertionError("the manual ends in a table")


def settings_rows(prefix: str, kind: inspect.Type) -> Iterator[Row]:
    """Derive what the table must say: key, default, and what else it can be."""
    assert isinstance(kind, inspect.StructType)
    for field in kind.fields:
        path, of = f"{prefix}{field.name}", field.type
        if isinstance(of, inspect.DictType) and isinstance(of.value_type, inspect.StructType):
            yield from settings_rows(f"{path}.NAME.", of.value_type)
        elif isinstance(of, inspect.VarTupleType) and isinstance(of.item_type, inspect.StructType):
            yield from settings_rows(f"{path}.NAME.", of.item_type)
        elif isinstance(of, inspect.StructType):
            yield from settings_rows(f"{path}.", of)
        else:
            yield f"`{path}`", show_default(field), show_kind(of)


def show_default(field: inspect.Field) -> str:
    """Write a default as the settings file would."""
    if field.default is None:
        return ""
    if field.default is not NODEFAULT:
        return f"`{json.dumps(field.default)}`"
    return "needed" if field.default_factory is NODEFAULT else f"`{json.dumps(field.default_factory())}`"


def show_kind(kind: inspect.Type) -> str:
    """Say what a setting can be."""
    match kind:
        case inspect.IntType():
            return f"{kind.ge} to {kind.le}"
        case inspect.FloatType():
            return f"{kind.ge} to {kind.le}"
        case inspect.LiteralType():
            return ", ".join(sorted(map(str, kind.values)))
        case inspect.UnionType():
            (other,) = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
            return show_kind(other)
        case inspect.ListType() | inspect.VarTupleType():
            return "a list of texts"
        case inspect.DictType():
            return "a table"
        case inspect.StrType():
            return "text"
    raise AssertionError(f"the manual has no words for {kind}")


def test_the_table_of_settings_is_that_of_the_program() -> None:
    """Whoever writes settings by the manual meets no surprise; what is missing is printed to be pasted."""
    written = table("key")
    derived = list(settings_rows("", inspect.type_info(Settings)))
    missing = [row for row in derived if row not in [line[:3] for line in written]]
    assert not missing, "\n" + "\n".join(f"| {' | '.join(row)} | MEANING |" for row in missing)
    assert [row[:3] for row in written] == derived, "in the order of the program"
    assert all(len(row) == 4 and row[3] for row in written), "each says what it means"


def empty() -> Statistics:
    return Statistics(
        uptime_seconds=0,
        clients=0,
        admitted=0,
        pending_bytes=0,
        gone={},
        refused={},
        work=WorkStatistics(
            running={"x": 0},
            waiting={"x": 0},
            hung=0,
            hashed_bytes=0,
            sharing=SharingStatistics(0, 0, 0),
        ),
        places={},
        version="1.2.3",
        settings="",
        last_reload=LastReload(),
        tally=Tally([b"ping"]),
        records=SinkStatistics(0, 0, 0, is_stalled=False),
    )


def test_the_table_of_metrics_is_that_of_the_program() -> None:
    """Whoever builds a dashboard by the manual finds each series, with its labels and its type."""
    body = Exposition(empty).render().decode()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", body, re.MULTILINE))
    labels: dict[str, set[str]] = {name: set() for name in types}
    for name, shown in re.findall(r"^(\w+)\{(.*)\}", body, re.MULTILINE):
        base = name if name in types else re.sub("_(bucket|count|sum)$", "", name)
        labels[base] |= set(re.findall(r"(\w+)=", shown)) - {"le"}
    derived = [
        (f"`{name}`", kind, ", ".join(f"`{label}`" for label in sorted(labels[name])))
        for name, kind in types.items()
    ]
    assert [row[:3] for row in table("metric")] == derived


def test_the_table_of_events_is_that_of_the_program() -> None:
    """Whoever builds an alarm on a record finds its action, its sentence and its fields by the manual."""
    rows = {row[0].split("`")[1]: row for row in table("action")}
    assert list(rows) == list(EVENTS), "in the order of the program"
    all_fields = {field for event in EVENTS.values() for field in event.fields}
    for action, (_, sentence, more) in rows.items():
        fields = set(re.findall("`([^`]+)`", more)) & all_fields
        assert fields == set(EVENTS[action].fields), action
        words = re.split("[<{]", EVENTS[action].sentence)[0]
        assert sentence.startswith(words), action


def test_the_table_of_signals_is_that_of_the_program() -> None:
    """Whoever sends a signal by the manual knows what it does, and none is obeyed in secret."""
    written = [name for row in table("signal") for name in re.findall(r"SIG[A-Z0-9]+", row[0])]
    obeyed = {number.name for number in (*signals._STOPPING, *signals._SURVIVED)}
    assert len(written) == len(obeyed)
    assert set(written) == obeyed


def test_the_table_of_exit_codes_is_that_of_the_program() -> None:
    """Whoever has a unit or a script look at the exit code can rely on the manual."""
    setup = (MANUAL.parent.parent / "scripts" / "setup").read_text()
    of_scripts = set(map(int, re.findall(r"\bexit (\d+)", setup)))
    of_program = {code for name, code in vars(serving).items() if name.startswith("EXIT_")}
    assert [int(row[0]) for row in table("exit code")] == sorted(of_program | of_scripts)
