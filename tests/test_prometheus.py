"""The real Prometheus scrapes under load, and what it then says is what the record says; promtool agrees."""

import json
import os
import re
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from conftest import StartProgram
from program import PATIENCE_SECONDS, Program, Record, free_port, wait_until

FULL = os.environ.get("TRIO_CMD_FULL") == "1"
SCRAPES_UNDER_LOAD = 12 if FULL else 1
CLIENTS = 12 if FULL else 6
MAX_CLIENTS = 4
PINGS, UNKNOWN = 20, 2
# Prometheus writes what it has to disk at its end.
END_SECONDS = 30.0

ROOT = Path(__file__).parent.parent
CONFIG, ALERTS = ROOT / "deploy" / "prometheus.yml", ROOT / "deploy" / "alerts.yml"
PLACE = '"127.0.0.1:9998"'


def promtool(*args: str | Path, text: str | None = None) -> None:
    done = subprocess.run(["promtool", *args], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "error" not in done.stderr.lower(), done.stderr


@pytest.fixture
def scrapeable(
    start: StartProgram, write_settings: Callable[[str], str], log_file: Path
) -> tuple[Program, int]:
    """A program with metrics, and their port."""
    port = free_port()
    config = write_settings(
        f"[server]\nmax_clients = {MAX_CLIENTS}\n[metrics]\nport = {port}\n"
        f'[logs]\nsyslog = {{ file = "{log_file}" }}\n'
    )
    program = start("--config", config)
    program.wait_for("listening", system="trio_cmd.Metrics")
    return program, port


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_SECONDS) as answer:
        return str(answer.read().decode())


@pytest.mark.needs("promtool")
def test_promtool_finds_nothing_to_say_about_the_metrics(scrapeable: tuple[Program, int]) -> None:
    """Names, types and units are those that every dashboard expects."""
    program, port = scrapeable
    program.ask(b"ping\nnope\nlastlog\n")
    promtool("check", "metrics", text=scrape(port))


@pytest.mark.needs("promtool")
def test_promtool_accepts_what_we_ship() -> None:
    """The files can be copied as they are."""
    promtool("check", "config", CONFIG)
    promtool("check", "rules", ALERTS)


@pytest.mark.needs("promtool")
def test_each_alert_speaks_when_it_should_and_only_then() -> None:
    """Nobody is woken by a healthy server, and each trouble is said with what to do."""
    promtool("test", "rules", ROOT / "tests" / "data" / "alerts_test.yml")


def test_each_alert_is_about_metrics_that_there_are(scrapeable: tuple[Program, int]) -> None:
    """A rule about a series that nobody exposes would be silent for ever."""
    _, port = scrapeable
    wanted = set(re.findall(r"\btrio_cmd_[a-z_]+", ALERTS.read_text()))
    exposed = set(re.findall(r"^(trio_cmd_[a-z_]+)", scrape(port), re.MULTILINE))
    assert wanted
    assert wanted <= exposed
    tested = (ROOT / "tests" / "data" / "alerts_test.yml").read_text()
    for alert in re.findall(r"alert: (\w+)", ALERTS.read_text()):
        assert tested.count(f"alertname: {alert}\n") == 1, f"{alert} is not shown to speak"
        assert tested.count(f"alertname: {alert},") == 1, f"{alert} is not shown to be silent"


class Prometheus:
    """The real one, asked over its HTTP interface."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Evaluate now; returns labels and values."""
        found = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": query}))
        assert found["status"] == "success"
        return [(row["metric"], float(row["value"][1])) for row in found["data"]["result"]]

    def value(self, query: str) -> float:
        """Evaluate what is one number; nothing is 0."""
        rows = self.ask(query)
        assert len(rows) <= 1
        return rows[0][1] if rows else 0.0

    def wait_for_scrape(self) -> None:
        """Wait until it has scraped once more, from now on."""
        now = time.time()
        wait_until(lambda: self.value("timestamp(up)") > now, "a scrape")

    def is_ready(self) -> bool:
        try:
            self._get("/api/v1/status/buildinfo")
            return self.ask("vector(1)") != []
        except OSError:
            return False

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE_SECONDS
        ) as answer:
            return json.load(answer)


@contextmanager
def prometheus(target: int, folder: Path) -> Iterator[Prometheus]:
    """Run what we ship, with only the port of the target replaced."""
    text = CONFIG.read_text()
    assert text.count(PLACE) == 1
    config = folder / "prometheus.yml"
    config.write_text(text.replace(PLACE, f'"127.0.0.1:{target}"'))
    (folder / "alerts.yml").write_text(ALERTS.read_text())
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            it = Prometheus(port)
            wait_until(it.is_ready, "Prometheus answers")
            yield it
        finally:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


class Load:
    """Clients that connect, ask and leave, over and over; what was answered is counted."""

    def __init__(self, program: Program, file: Path) -> None:
        self._program = program
        self._asked = (
            b"ping\n" * PINGS + b"nope\n" * UNKNOWN + b"lastlog 1\ncomphash %b\nexit\n" % bytes(file)
        )
        self._lock = threading.Lock()
        self._is_enough = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        self.answered = 0
        self.refused = 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_enough.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def _ask(self) -> None:
        while not self._is_enough.is_set():
            answer = self._program.ask(self._asked)
            is_whole = answer.count(b"pong\n") == PINGS and b"File hash is : " in answer
            # Whoever is refused while it still sends may be too late to read why.
            assert is_whole or answer in (b"", b"Too many connections. bye !\n"), answer
            with self._lock:
                self.answered += is_whole
                self.refused += not is_whole


def of_command(record: Record, name: str, outcome: str) -> bool:
    return bool(
        record["action"] == "command-completed" and (record["command"], record["outcome"]) == (name, outcome)
    )


def summed(records: list[Record], action: str) -> int:
    """Count what the record tells of by sums only."""
    return sum(r["count"] for r in records if r["action"] == "events-summed" and r["of"] == action)


@pytest.mark.proof
@pytest.mark.needs("prometheus")
def test_what_prometheus_says_is_what_was_sent_and_what_was_recorded(
    scrapeable: tuple[Program, int], tmp_path: Path
) -> None:
    """A dashboard can be held against the record, to the last command."""
    program, port = scrapeable
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100_003)
    with prometheus(port, tmp_path) as it:
        with Load(program, file) as load:
            wait_until(lambda: load.answered > 0, "the load has begun")
            for _ in range(SCRAPES_UNDER_LOAD):
                it.wait_for_scrape()
        assert it.value("min_over_time(up[1h])") == 1
        it.wait_for_scrape()
        counters = it.ask('{__name__=~"trio_cmd_.*(_total|_count|_sum)"}')
        resets = it.ask("resets(trio_cmd_commands_total[1h]) > 0")
        active = it.value("trio_cmd_connections_active")
    assert program.stop() == 0
    compare(counters, program.rest(), load)
    assert not resets
    assert active == 0


def compare(counters: list[tuple[dict[str, str], float]], records: list[Record], load: Load) -> None:
    """Hold what Prometheus says against the load and the record."""
    series = {
        tuple(sorted((k, v) for k, v in labels.items() if k not in ("job", "instance"))): count
        for labels, count in counters
    }
    named = {
        (labels["command"], labels["outcome"]): count
        for labels, count in counters
        if labels["__name__"] == "trio_cmd_commands_total" and count
    }
    assert load.answered > 10
    sent = {
        ("ping", "ok"): PINGS,
        ("unknown", "unknown-command"): UNKNOWN,
        ("lastlog", "ok"): 1,
        ("comphash", "ok"): 1,
        ("exit", "ok"): 1,
    }
    assert named == {key: each * load.answered for key, each in sent.items()}
    recorded: Counter[tuple[str, str]] = Counter()
    for record in records:
        if record["action"] == "command-completed":
            name = "unknown" if record["outcome"] == "unknown-command" else record["command"]
            recorded[name, record["outcome"]] += 1
    recorded["unknown", "unknown-command"] += summed(records, "command-received")
    assert named == recorded

    def value(name: str, **labels: str) -> float:
        return series[tuple(sorted({"__name__": f"trio_cmd_{name}", **labels}.items()))]

    refused = sum(r["action"] == "client-refused" for r in records) + summed(records, "client-refused")
    assert value("connections_total", result="admitted") == load.answered
    assert value("connections_total", result="too-many-clients") == load.refused == refused
    completed = [r for r in records if r["action"] == "command-completed"]
    assert value("shared_total") == sum(bool(r.get("shared")) for r in completed)
    for name in ("ping", "lastlog", "comphash"):
        assert value("command_seconds_count", command=name) == recorded[name, "ok"]
        spent = sum(r["seconds"] for r in completed if r["command"] == name)
        assert value("command_seconds_sum", command=name) == pytest.approx(spent, abs=1e-6 * len(completed))
    assert value("events_lost_total") == 0
    hashed = value("hashed_bytes_total")
    assert hashed % 100_003 == 0
    assert 0 < hashed <= 100_003 * load.answered  # clients share runs
