"""The benchmark itself: its peers answer and record, its page is written, and what is wrong is void."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest

BENCH = Path(__file__).parent.parent / "scripts" / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of the benchmark, which is no package."""
    monkeypatch.syspath_prepend(str(BENCH))
    return import_module


def record_of(path: Path, *events: str) -> None:
    path.write_text("".join(f"2026-11-20 [CmdProtocol,0,127.0.0.1] {event}\n" for event in events))


def test_a_row_with_a_missing_record_is_void(bench: Any, tmp_path: Path) -> None:
    """Nobody is fast by saying nothing."""
    record = bench("record")
    path = tmp_path / "record"
    record_of(path, "Cmd received from 127.0.0.1 : ping", "Cmd completed for 127.0.0.1 : ping")
    record.Record(path).take(received=1, completed=1)
    record.SETTLE_SECONDS = 0.01
    with pytest.raises(record.Void, match="'received': 1, 'completed': 1"):
        record.Record(path).take(received=2, completed=2)


def test_a_row_with_a_lost_record_is_void(bench: Any, tmp_path: Path) -> None:
    """A server that says it has lost a record is believed."""
    record = bench("record")
    path = tmp_path / "record"
    record_of(path, "Cmd received from 127.0.0.1 : ping", '1 log events lost","action":"events-lost"')
    with pytest.raises(record.Void, match="'said lost': 1"):
        record.Record(path).take(received=1)


def test_a_wrong_answer_is_seen_and_an_unordered_one_is_not_wrong(bench: Any) -> None:
    """A figure of a server that answers anything else means nothing."""
    load = bench("load")
    question = load.Question(b"a\nb\n", b"1\n2\n", 2)
    question.check(b"2\n1\n")
    with pytest.raises(load.WrongAnswer):
        question.check(b"1\n1\n")


def test_a_ratio_is_steady_when_its_rounds_agree(bench: Any) -> None:
    """What is printed behind ± is not more certain than what was measured."""
    spread = bench("rounds").spread
    assert spread([0.5] * 9) == 0
    assert 0 < spread([0.50, 0.51, 0.49] * 5) <= 0.03
    assert spread([0.3, 0.5, 0.9] * 3) > 0.3


def test_a_bar_longer_than_the_picture_is_torn(bench: Any) -> None:
    """A picture does not make forty times look like twice."""
    draw = bench("chart").draw
    values = {"ours": 10.0, "shell <&>": 500.0}
    picture = draw("µs", values, "µs", "ours", 20)
    fromstring(picture)
    assert picture.count("<path") == 1
    assert max(map(float, re.findall(r'width="([0-9.]+)" height="18"', picture))) < 720
    assert "shell &lt;&amp;&gt;" in picture
    assert "500 µs" in picture


@pytest.mark.proof
def test_the_benchmark_runs_and_writes_its_page(tmp_path: Path) -> None:
    """Whoever doubts a figure can make it again: all peers that are here answer, and record all."""
    rows = ["visit", "pipelined", "lastlog-4", "comphash-1"]
    options = ["--quick", "--rounds", "1", "--only", *rows, "--write", str(tmp_path)]
    env = {**os.environ, "PYTHONSAFEPATH": ""}  # the program imports its neighbours
    command = [sys.executable, str(BENCH / "compare.py"), *options]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "benchmarks.md").read_text()
    missing = set(re.findall(r"^(.*) is missing$", done.stderr, re.MULTILINE))
    assert "asyncio" not in missing
    compared = {
        "trio_cmd",
        "Twisted",
        "asyncio",
        "uvloop",
        "Trio, plain",
        "socat",
        "ncat",
        "xinetd",
    } - missing
    visits = page.partition("### Connect, ask, leave")[2].partition("###")[0]
    assert {line.split(" | ")[0][2:] for line in visits.splitlines()[6:] if line.startswith("| ")} == compared
    assert "void" not in page.partition("## Workloads")[2]
    for picture in re.findall(r"\]\((benchmarks/\S+\.svg)\)", page):
        assert (tmp_path / picture).read_text().startswith("<svg ")
