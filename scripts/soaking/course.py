"""A soak from its start to its report: clients and changes in turns with quiet points."""

import json
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from soaking.accounts import Ledger, compare_marks, compare_refusals, compare_sums
from soaking.changes import Changes
from soaking.crowd import Crowd, leaves
from soaking.growth import COUNTED, Sample, find_growth, find_memory_growth
from soaking.place import Place
from soaking.questions import Answer, Question
from soaking.server import Server, wait_until

__all__ = ["Course", "Plan", "soak"]

# An idle thread of Trio's ends after ten seconds.
SETTLE_SAMPLES = 12
SETTLE_SECONDS = 60
# What a second of an address has summed up is in the record by then.
SUMMED_SECONDS = 2.5
FORMAT = Question(b"format json", (Answer((), {"format": "json"}),))


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        seconds: in all, or a little more: every client is waited for.
        quiet_seconds: of clients between two quiet points.
        rate: clients a second.
        seed: of all that is done by chance.
        is_secured: whether the port speaks TLS.
    """

    seconds: float
    quiet_seconds: float
    rate: float
    seed: str
    is_secured: bool = False


@dataclass(slots=True)
class Course:
    """What was seen.

    Attributes:
        plan: what was to be done.
        ledger: what the clients have seen.
        server: its record and its samples.
        quiet: the samples of the quiet points.
        faults: one line each; none: all is well.
        seconds: how long it took.
    """

    plan: Plan
    ledger: Ledger
    server: Server
    quiet: list[Sample] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


async def soak(plan: Plan) -> Course:
    """Do it all.

    Cancel: the server is killed, its folder gone.
    """
    with tempfile.TemporaryDirectory(prefix="trio-cmd-soak-") as folder:
        place = Place(Path(folder), plan.is_secured)
        place.furnish(plan.seed)
        server = Server(place)
        try:
            return await _run(plan, place, server)
        finally:
            server.kill()


async def _run(plan: Plan, place: Place, server: Server) -> Course:
    course = Course(plan, Ledger(), server)
    began = trio.current_time()
    async with trio.open_nursery() as helpers:
        helpers.start_soon(server.read_record)
        port = await server.wait_for_port()
        helpers.start_soon(place.grow)
        crowd = Crowd(plan.seed, plan.rate, place, course.ledger, port)
        try:
            async with trio.open_nursery() as watching:
                watching.start_soon(server.take_samples)
                await _take_turns(course, crowd, Changes(plan.seed, place, server), began)
                watching.cancel_scope.cancel()
            await server.stop()
        except* Exception as errors:  # a server that does not answer any more is a fault as well
            course.faults += [f"{type(error).__name__}: {error}" for error in leaves(errors)]
        course.faults += server.faults()
        helpers.cancel_scope.cancel()
    server.checker.settle()
    course.faults += [*server.checker.faults, *course.ledger.faults, *find_memory_growth(server.samples)]
    course.seconds = trio.current_time() - began
    return course


async def _take_turns(course: Course, crowd: Crowd, changes: Changes, began: float) -> None:
    """Let clients come, and leave, again and again; the first turn is short, to warm up."""
    plan = course.plan
    # The last quiet point has its time as well.
    until = began + plan.seconds - SETTLE_SAMPLES - SUMMED_SECONDS
    seconds = min(plan.quiet_seconds, plan.seconds / 10)
    while True:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(changes.run)
            await crowd.run(seconds)
            nursery.cancel_scope.cancel()
        await changes.restore()
        await _be_quiet(course, crowd)
        course.faults += changes.faults
        changes.faults.clear()
        seconds = min(plan.quiet_seconds, until - trio.current_time())
        if seconds <= 0 or course.faults:
            return


async def _be_quiet(course: Course, crowd: Crowd) -> None:
    """All clients have left: judge what the server is made of, and compare all sums."""
    await trio.sleep(SUMMED_SECONDS)
    sample = await _settle(course)
    if course.quiet:
        course.faults += find_growth(course.quiet[0], sample)
    course.quiet.append(sample)
    mark = f"quiet-{len(course.quiet)}"
    status = await _ask_status(crowd, mark)
    checker = course.server.checker
    await wait_until(lambda: checker.is_settled(course.ledger.connections), "the record of all connections")
    checker.settle()
    course.faults += compare_sums(course.ledger.connections, checker, status, mark)
    unshaken = checker.reasons["tls-failed"] + checker.summed["client-lost"]
    course.faults += compare_refusals(course.ledger.met, status, unshaken)
    course.faults += compare_marks(course.ledger.marks, checker.marks)
    course.ledger.marks.clear()
    checker.marks.clear()


async def _settle(course: Course) -> Sample:
    """Wait until threads that idle have ended: until nothing is more than at first, or nothing changes."""
    samples = course.server.samples
    begun = len(samples)
    for _ in range(SETTLE_SECONDS):
        count = len(samples)
        await wait_until(lambda count=count: len(samples) > count, "a sample")  # type: ignore[misc]  # no default inferred
        if course.quiet and not find_growth(course.quiet[0], samples[-1]):
            break
        same = {
            tuple(getattr(sample, name) for name in COUNTED) for sample in samples[begun:][-SETTLE_SAMPLES:]
        }
        if not course.quiet and len(same) == 1 and len(samples) - begun >= SETTLE_SAMPLES:
            break
    return replace(samples[-1])


async def _ask_status(crowd: Crowd, mark: str) -> dict[str, Any]:
    """Ask for the counts, as the only client."""
    async with await crowd.visitor().connect("unix") as caller:
        await caller.send(f"format json\nstatus {mark}\n".encode())
        await caller.expect(FORMAT, is_json=True)
        answer = json.loads(await caller.line())
        result: dict[str, Any] = answer["result"]
    return result
