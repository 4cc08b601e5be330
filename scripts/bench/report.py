"""What one run has found enters, ``docs/benchmarks.md`` and the pictures beside it leave."""

import string
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import machine
from chart import draw
from findings import Findings, Target
from kinds import KINDS, OURS
from large_file import Large
from rounds import STEADY, Result

PAGE = Path(__file__).with_name("page.md")
EDGE = 1.25
"""A picture is so much wider than the longest bar of a server that starts no shells."""
NOT_MEASURED = "Not measured."


def write(findings: Findings, folder: Path, seconds: float) -> None:
    """Write the page and its pictures into a folder."""
    # First of all the commit: what is written here would make it a changed one.
    text = string.Template(PAGE.read_text()).substitute(
        machine=describe_machine(seconds),
        targets=describe_targets(list(findings.targets())),
        generator=describe_generator(findings),
        workloads="\n\n".join(describe_workload(result) for result in findings.results) or NOT_MEASURED,
        **describe_rest(findings),
    )
    pictures = folder / "benchmarks"
    pictures.mkdir(parents=True, exist_ok=True)
    for old in pictures.glob("*.svg"):
        old.unlink()
    for name, picture in draw_all(findings):
        (pictures / f"{name}.svg").write_text(picture)
    (folder / "benchmarks.md").write_text(text)


def describe_machine(seconds: float) -> str:
    """Say what it was measured on."""
    facts = machine.describe()
    facts |= {"date": time.strftime("%Y-%m-%d"), "measured for": f"{seconds / 60:.0f} minutes"}
    absent = machine.missing()
    note = f"\n\nMissing, and so not compared: {', '.join(absent)}." if absent else ""
    return table(("measured on", ""), facts.items()) + note


def describe_targets(targets: Sequence[Target]) -> str:
    """Say what is aimed at, and whether it is met."""
    met = sum(target.is_met for target in targets)
    rows = (
        (
            target.title,
            target.against,
            number(target.most),
            number(target.found),
            percent(target.spread),
            "met" if target.is_met else "**not met**",
        )
        for target in targets
    )
    head = ("workload", "against", "at most", "measured", "±", "")
    return f"{met} of {len(targets)} are met.\n\n{table(head, rows)}"


def describe_generator(findings: Findings) -> str:
    """Say what the load generator takes, and how it was checked."""
    lines = [
        f"* It asks a bare echo, {title}, {rate:,.0f} times a second: so fast it can be."
        for title, rate in findings.bare.items()
    ]
    lines += [
        f"* {name} costs {split.ratio:.2f} (± {split.spread:.1%}) times as much for each operation"
        " when its 50 clients are spread over two generators."
        for name, split in findings.splits.items()
    ]
    rows = (
        (result.row.title, *(f"{result.load(name):.0%}" if name in result.figures else "" for name in KINDS))
        for result in findings.results
    )
    lines += ["", "What it takes of a core while a server is asked:", "", table(("workload", *KINDS), rows)]
    return "\n".join(lines)


def describe_workload(result: Result) -> str:
    """Write the section of a workload, with its picture."""
    picture = f"\n\n![{result.row.title}](benchmarks/{result.row.name}.svg)" if result.figures else ""
    title = result.row.title
    return f"### {title[:1].upper()}{title[1:]}\n\n{describe_result(result)}{picture}"


def describe_result(result: Result) -> str:
    """Write the table of a workload."""
    rows = []
    for name in in_order(result):
        ratio = spread = ""
        if name != OURS and OURS in result.figures:
            ratio, spread = f"{result.ratio(name):.2f}", percent(result.spread(name))
        rows.append((name, f"{result.cpu(name):,.1f}", f"{result.rate(name):,.0f}", ratio, spread))
    void = "".join(f"\n\n{name} is void: {reason}." for name, reason in result.void.items())
    rounds = max(map(len, result.figures.values()), default=0)
    is_steady = OURS in result.figures and result.is_steady
    steady = "" if is_steady else f"; not all ratios repeat within {STEADY:.0%}"
    made = table(("server", "µs CPU", "a second", "ours / theirs", "±"), rows)
    return f"{rounds} rounds{steady}.\n\n{made}{void}"


def describe_rest(findings: Findings) -> dict[str, str]:
    """Write the tables of what is no workload, by their places in the page."""
    return {
        "latencies": describe_latencies(findings),
        "idles": describe_idles(findings),
        "large": describe_large(findings.large) if findings.large else NOT_MEASURED,
        "startups": describe_startups(findings),
    }


def describe_latencies(findings: Findings) -> str:
    """Write how long pings take."""
    if not findings.latencies:
        return NOT_MEASURED
    names = list(next(iter(findings.latencies.values())))
    rows = ((title, *map(milliseconds, each.values())) for title, each in findings.latencies.items())
    pictures = (f"latency-{place}" for place in range(len(findings.latencies)))
    return f"{table(('', *names), rows)}\n\n{show(pictures)}"


def describe_idles(findings: Findings) -> str:
    """Write what idle clients cost."""
    if not findings.idles:
        return NOT_MEASURED
    rows = (
        (name, f"{one.clients:,}", f"{one.bytes_each / 1024:.1f}", milliseconds(one.ping_seconds))
        for name, each in findings.idles.items()
        for one in each
    )
    return f"{table(('server', 'clients', 'KiB each', 'ping, ms'), rows)}\n\n{show(['idle'])}"


def describe_large(large: Large) -> str:
    """Write what the large file gave."""
    pairs = zip(large.ours, large.openssl, strict=True)
    rows = ((f"{mine:.2f} s", f"{other:.2f} s", f"{mine / other:.2f}") for mine, other in pairs)
    head = (f"`comphash`, {large.gib:g} GiB", "`openssl dgst -sha1`", "ours / theirs")
    within, memory = milliseconds(large.ping_seconds), max(large.memory) / 2**20
    pings = f"Meanwhile 99 of 100 pings are answered within {within} ms"
    return f"{table(head, rows)}\n\n{pings}, and the server takes at most {memory:.1f} MiB."


def describe_startups(findings: Findings) -> str:
    """Write what starting takes."""
    if not findings.startups:
        return NOT_MEASURED
    rows = (
        (name, milliseconds(one.seconds), milliseconds(one.cpu_seconds), f"{one.memory_bytes / 2**20:.1f}")
        for name, one in findings.startups.items()
    )
    return table(("server", "ms", "ms CPU", "MiB"), rows)


def draw_all(findings: Findings) -> Iterator[tuple[str, str]]:
    """Draw the pictures; yields the name and the content of each."""
    for result in findings.results:
        if result.figures:
            yield result.row.name, draw_result(result)
    for place, (title, each) in enumerate(findings.latencies.items()):
        values = {name: 1000 * seconds for name, seconds in each.items() if seconds is not None}
        if values:
            head = f"ping, 99th percentile, {title}".replace("`", "")
            yield f"latency-{place}", draw(head, values, "ms", OURS, max(values.values()))
    values = {name: each[-1].bytes_each / 1024 for name, each in findings.idles.items()}
    if values:
        yield "idle", draw("memory for each idle client", values, "KiB", OURS, max(values.values()))


def draw_result(result: Result) -> str:
    """Draw what an operation costs."""
    values = {name: result.cpu(name) for name in in_order(result)}
    lasting = [value for name, value in values.items() if name not in KINDS or not KINDS[name].is_shell]
    title = f"{result.row.title}: µs of server CPU".replace("`", "")
    return draw(title, values, "µs", OURS, EDGE * max(lasting or values.values()))


def in_order(result: Result) -> list[str]:
    """List the servers of a row, ours first; who comes last is unknown here: another checkout of ours."""
    return [*(name for name in KINDS if name in result.figures), *sorted(result.figures.keys() - KINDS)]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show(names: Iterable[str]) -> str:
    """Show pictures."""
    return "\n".join(f"![{name}](benchmarks/{name}.svg)" for name in names)


def number(value: float) -> str:
    """Write a ratio, or a number of bytes."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def percent(value: float) -> str:
    """Write a share; nothing for none."""
    return f"{value:.1%}" if value else ""


def milliseconds(seconds: float | None) -> str:
    """Write a time; ``None``: there was no answer."""
    return "none" if seconds is None else f"{1000 * seconds:.2f}"
