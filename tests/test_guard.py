"""The guard of the hot path: what a command costs, in system calls and bytecode instructions."""

import sys

import pytest

import guard

STORED = {"in turn": {"calls": 4.0, "instructions": 1000.0}, "visit": {"calls": 30.0, "instructions": 1000.0}}
# Each command looks at one of the clocks, once at least.
BURDENED = """
import os, runpy, sys, time
def burden(clock):
    def look():
        {more}
        return clock()
    return look
time.perf_counter, time.perf_counter_ns = burden(time.perf_counter), burden(time.perf_counter_ns)
"""


def with_cost(name: str, unit: str, cost: float) -> dict[str, dict[str, float]]:
    return {**STORED, name: {**STORED[name], unit: cost}}


@pytest.mark.parametrize(
    ("name", "unit", "cost"),
    [("in turn", "calls", 4.45), ("visit", "calls", 30.6), ("in turn", "instructions", 1101)],
)
def test_a_tenth_or_half_a_call_more_is_too_much(name: str, unit: str, cost: float) -> None:
    """Nobody has to notice by chance that the hot path has become slower."""
    assert guard.compare(STORED, STORED) == []
    assert guard.compare(STORED, with_cost(name, unit, cost)) == [
        f"{name}: {cost:g} {unit} each, {STORED[name][unit]:g} are stored"
    ]


def test_of_two_measurements_the_lesser_counts() -> None:
    """What else runs on a machine does not stop a change."""
    noisy = with_cost("visit", "calls", 40.0)
    assert guard.least(noisy, STORED) == guard.least(STORED, noisy) == STORED


@pytest.mark.needs("strace")
@pytest.mark.skipif(guard.PYTHON not in guard.load(), reason="nothing is stored for this Python")
def test_no_command_costs_more_than_is_stored() -> None:
    """An extra system call, or a tenth more work, is seen in the change that brings it."""
    assert guard.judge(guard.load()[guard.PYTHON]) == []


@pytest.mark.proof
@pytest.mark.needs("strace")
def test_an_extra_call_and_more_work_are_found() -> None:
    """The guard is not blind."""
    stored = guard.load()[guard.PYTHON]
    serve = "from trio_cmd.cli import main; sys.exit(main())"
    calls = guard.count_calls([sys.executable, "-c", BURDENED.format(more="os.getppid()") + serve])
    measured = {name: {"calls": count} for name, count in calls.items()}
    assert len(guard.compare(stored, measured)) == len(stored), measured
    serve = f"runpy.run_path({str(guard.HERE / 'guarded_server.py')!r}, run_name='__main__')"
    work = BURDENED.format(more="[n for n in range(300)]")
    instructions = guard.count_instructions([sys.executable, "-c", work + serve])
    measured = {name: {"instructions": count} for name, count in instructions.items()}
    assert len(guard.compare(stored, measured)) == len(stored), measured
