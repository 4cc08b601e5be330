"""Ours beside its peers: the same questions to all servers, in turns, in the same rounds.

    python scripts/bench/compare.py [--quick] [--only ROW ...] [--servers NAME ...] [--against DIR]

``nox -s bench`` installs the peers, runs it all and writes ``docs/benchmarks.md``.  With ``--only``
a few rows are measured and printed.  ``--against DIR`` has the package of another checkout run
beside this one, as a further peer.
"""

import argparse
import dataclasses
import gc
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import generator
import idle
import large_file
import latency
import report
import rounds
import startup
from findings import Findings
from kinds import KINDS, OURS, Kind
from rounds import FULL, QUICK, Effort
from rows import ROWS, Material, make_material
from servers import Server, running
from usage import adopt_orphans


@dataclasses.dataclass(frozen=True)
class Bench:
    """What is measured with.

    Attributes:
        kinds: all servers that are compared.
        servers: of each kind one that runs.
        material: what they are asked about.
        folder: for files; ``records`` in it is that of the servers.
        effort: how long it is measured.
        findings: what was found so far.
    """

    kinds: list[Kind]
    servers: list[Server]
    material: Material
    folder: Path
    effort: Effort
    findings: Findings

    @property
    def records(self) -> Path:
        """Where servers record."""
        return self.folder / "records"

    @property
    def lasting_kinds(self) -> list[Kind]:
        """Those that do not start a shell for each client."""
        return [kind for kind in self.kinds if not kind.is_shell]

    @property
    def lasting_servers(self) -> list[Server]:
        """Those that do not start a shell for each client."""
        return [server for server in self.servers if not server.kind.is_shell]


def measure_startup(bench: Bench) -> None:
    """Start them again and again."""
    kinds, syslog = bench.lasting_kinds, bench.material.syslog
    bench.findings.startups = startup.measure(kinds, bench.records, syslog, bench.effort.startups)


def measure_generator(bench: Bench) -> None:
    """See that the load generator is not the bottleneck."""
    seconds = bench.effort.ping_seconds / 2
    bench.findings.bare = generator.measure_bare(seconds)
    for server in bench.servers:
        if server.name in {OURS, "asyncio"}:
            split = generator.measure_split(server, seconds / 4, bench.effort.least)
            bench.findings.splits[server.name] = split


def measure_latency(bench: Bench) -> None:
    """Ping while other things go on."""
    found = bench.findings.latencies
    seconds, turns = bench.effort.ping_seconds, bench.effort.ping_rounds
    for situation in latency.make_situations(bench.material, bench.folder):
        times = latency.measure(bench.lasting_servers, situation, seconds, turns)
        found[situation.title] = dict(times)
    found[latency.STALLED] = {
        kind.name: latency.measure_stalled(kind, bench.records, bench.material.syslog, seconds)
        for kind in bench.lasting_kinds
    }


def measure_idle(bench: Bench) -> None:
    """Have clients that say nothing."""
    for kind in bench.lasting_kinds:
        idles = idle.measure(kind, bench.records, bench.material.syslog, bench.effort.idle)
        bench.findings.idles[kind.name] = idles


def measure_large(bench: Bench) -> None:
    """Hash a large file."""
    gib, turns = bench.effort.gib, bench.effort.large_rounds
    bench.findings.large = large_file.measure(bench.folder, bench.material.syslog, gib, turns)


OTHERS: dict[str, Callable[[Bench], None]] = {
    "startup": measure_startup,
    "generator": measure_generator,
    "latency": measure_latency,
    "idle": measure_idle,
    "large": measure_large,
}
"""What is no workload: name -> how it is measured."""

NAMES = ["startup", *ROWS, *(name for name in OTHERS if name != "startup")]
"""All rows, in the order in which they are measured: starting first, while the host is quiet."""


def raise_descriptors() -> None:
    """Let this process and the servers hold ten thousand clients."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: about a minute")
    parser.add_argument(
        "--only", nargs="+", metavar="ROW", choices=NAMES, default=NAMES, help=", ".join(NAMES)
    )
    names = [name for name in KINDS if name != OURS]
    parser.add_argument("--servers", nargs="*", metavar="NAME", choices=names, default=names)
    parser.add_argument("--against", metavar="DIR", help="another checkout of ours, a further peer")
    parser.add_argument("--rounds", type=int, help="exactly so many")
    parser.add_argument("--write", metavar="DIR", help="where the page and its pictures are written")
    return parser.parse_args(argv)


def choose_kinds(args: argparse.Namespace) -> list[Kind]:
    """Find what is to be compared and is there; what is missing is named."""
    kinds = [KINDS[name] for name in (OURS, *args.servers)]
    for kind in kinds:
        if not kind.is_there:
            print(f"{kind.name} is missing", file=sys.stderr)
    if args.against:
        folder = str(Path(args.against).resolve())
        kinds.append(dataclasses.replace(KINDS[OURS], name=folder, folder=folder))
    return [kind for kind in kinds if kind.is_there]


def choose_effort(args: argparse.Namespace) -> Effort:
    """Decide how long to measure."""
    effort = QUICK if args.quick else FULL
    if args.rounds:
        effort = dataclasses.replace(effort, least=args.rounds, most=args.rounds)
    return effort


def measure(bench: Bench, names: list[str]) -> None:
    """Measure what is named, and print what was found."""
    for name in names:
        if name in ROWS:
            result = rounds.measure(ROWS[name], bench.servers, bench.material, bench.effort)
            bench.findings.results.append(result)
            print(f"\n{result.row.title} ({name}): {report.describe_result(result)}", flush=True)
        else:
            OTHERS[name](bench)
    for title, text in report.describe_rest(bench.findings).items():
        if text != report.NOT_MEASURED:
            print(f"\n{title}\n\n{text}")
    print(f"\n{report.describe_targets(list(bench.findings.targets()))}")


def main(argv: list[str]) -> int:
    """Measure, print and write; returns 1 when something is void."""
    args = parse_arguments(argv)
    began = time.monotonic()
    raise_descriptors()
    adopt_orphans()
    gc.disable()
    findings = Findings()
    kinds = choose_kinds(args)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        material = make_material(folder)
        (folder / "records").mkdir()
        with running(kinds, folder / "records", material.syslog) as servers:
            bench = Bench(kinds, servers, material, folder, choose_effort(args), findings)
            measure(bench, args.only)
    if args.write:
        report.write(findings, Path(args.write), time.monotonic() - began)
    return 1 if any(result.void for result in findings.results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
