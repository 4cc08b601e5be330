"""The figures of a soak, for people."""

from collections.abc import Iterator

from soaking.course import Course
from soaking.growth import COUNTED, Sample, slope_bytes_an_hour

__all__ = ["format_report"]

MAX_FAULTS = 40


def format_report(course: Course) -> str:
    """Write the table, and what is wrong."""
    rows = "\n".join(f"{name:24}{value}" for name, value in _rows(course))
    faults = course.faults[:MAX_FAULTS]
    more = [f"... and {len(course.faults) - MAX_FAULTS} more"] if len(course.faults) > MAX_FAULTS else []
    verdict = ["nothing was wrong"] if not faults else [f"WRONG: {fault}" for fault in [*faults, *more]]
    return "\n".join([rows, *verdict])


def _rows(course: Course) -> Iterator[tuple[str, str]]:
    checker, ledger, seconds = course.server.checker, course.ledger, max(course.seconds, 1e-9)
    actions = checker.actions
    yield "seed", course.plan.seed
    yield "port", "TLS" if course.plan.is_secured else "plain text"
    yield "seconds", f"{seconds:.0f}"
    clients = ledger.kinds.total()
    yield "clients", f"{clients}, {clients / seconds:.1f} a second, of {len(ledger.kinds)} kinds"
    yield "connections", f"{ledger.connections}, {ledger.connections / seconds:.1f} a second"
    yield "ends", _counts(checker.reasons)
    yield "commands", _counts(checker.outcomes)
    yield "answers compared", f"{ledger.answers}: {_counts(ledger.met)}"
    yield (
        "records checked",
        f"{checker.lines}, {checker.lines / seconds:.0f} a second; summed up: {_counts(checker.summed)}",
    )
    yield "reloads", f"{actions['reloaded']} taken, {actions['reload-refused']} refused"
    yield "rotations", str(course.server.rotations)
    for name in COUNTED:
        yield f"{name} when quiet", " ".join(str(getattr(sample, name)) for sample in _first_and_last(course))
        yield f"{name} at most", str(max((getattr(s, name) for s in course.server.samples), default=0))
    samples = course.server.samples
    if samples:
        yield (
            "PSS first, last, most",
            ", ".join(
                f"{size / 1e6:.1f} MB"
                for size in (samples[0].pss_bytes, samples[-1].pss_bytes, max(s.pss_bytes for s in samples))
            ),
        )
    yield "PSS when quiet", " ".join(f"{sample.pss_bytes / 1e6:.1f}" for sample in _some(course)) + " MB"
    slope = slope_bytes_an_hour(samples)
    yield "PSS an hour", "not judged below three hours" if slope is None else f"{slope / 1e6:+.2f} MB"


def _first_and_last(course: Course) -> list[Sample]:
    return [*course.quiet[:1], *course.quiet[1:][-1:]]


def _some(course: Course) -> list[Sample]:
    """Give a dozen of the quiet points."""
    return course.quiet[:: max(1, len(course.quiet) // 12)]


def _counts(counts: dict[str, int]) -> str:
    return (
        ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda row: -row[1]))
        or "none"
    )
