"""Random clients, reloads and rotations against two servers; fails on growth, loss and wrong answers.

One speaks plain text; the other TLS, and gets half as many clients.

    python scripts/soak.py [--minutes 60] [--quiet-minutes 5] [--rate 15] [--seed TEXT]

Every answer that can be known is compared, and every record: each command received is completed,
once; numbers are neither missing nor doubled over the rotations; the sums of ``status`` are those
of the record and of the clients.  At quiet points, when all clients have left, there may be no
more descriptors, threads, children and tasks than at the first.  Memory is judged from three hours
on: its hourly minimum may rise by 2 MB an hour.  The exit code is 0 when nothing was wrong, else 1.
"""

import argparse
import secrets
import sys
from dataclasses import replace

import trio

from soaking.course import Course, Plan, soak
from soaking.report import format_report


def parse(argv: list[str] | None) -> Plan:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--quiet-minutes", type=float, default=5, help="of clients between two quiet points")
    parser.add_argument("--rate", type=float, default=15, help="clients a second")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="the same clients come for the same one")
    args = parser.parse_args(argv)
    return Plan(args.minutes * 60, args.quiet_minutes * 60, args.rate, args.seed)


async def soak_all(plans: list[Plan]) -> list[Course]:
    """Do it all, side by side."""
    courses: list[Course] = []

    async def run(plan: Plan) -> None:
        courses.append(await soak(plan))

    async with trio.open_nursery() as nursery:
        for plan in plans:
            nursery.start_soon(run, plan)
    return courses


def main(argv: list[str] | None = None) -> int:
    """Soak and print; returns 0 when nothing was wrong."""
    plan = parse(argv)
    print(f"soaking for {plan.seconds:.0f} s, --seed {plan.seed}", flush=True)
    courses = trio.run(soak_all, [plan, replace(plan, rate=plan.rate / 2, is_secured=True)])
    print("\n\n".join(map(format_report, courses)))
    return 1 if any(course.faults for course in courses) else 0


if __name__ == "__main__":
    sys.exit(main())
