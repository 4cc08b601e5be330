import pytest

from outcomes import answer, digest, failure, silence
from trio_cmd.client.fleet import Outcome
from trio_cmd.client.verdict import Verdict

DIFFERS = answer("a", "verify sha1:ab /x", {"digest": "cd", "matches": False})
MATCHES = answer("a", "verify sha1:ab /x", {"digest": "ab", "matches": True})
LIES = answer("a", "verify sha1:ab /x", {"digest": "ab", "matches": "perhaps"})
OTHER = digest("c", "bb" * 20)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], 3),
        ([silence("a")], 3),
        ([silence("a"), silence("b")], 3),
        ([digest("a")], 0),
        ([digest("a"), digest("b")], 0),
        ([digest("a"), OTHER], 0),
        ([digest("a"), silence("b")], 1),
        ([digest("a"), failure("b", "comphash /x")], 1),
        ([failure("a", "comphash /x")], 1),
        ([MATCHES], 0),
        ([MATCHES, DIFFERS], 1),
        ([LIES], 1),
    ],
)
def test_the_exit_code_says_how_it_went(outcomes: list[Outcome], code: int) -> None:
    """A script decides by the exit code alone."""
    verdict = Verdict(expect_same=False)
    for outcome in outcomes:
        verdict.answered(outcome)
    assert verdict.exit_code == code


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([digest("a"), digest("b")], 0),
        ([digest("a"), OTHER], 4),
        ([digest("a"), OTHER, silence("d")], 1),
        ([silence("d")], 3),
        ([digest("a"), answer("a", "ping", {"pong": True})], 0),
    ],
)
def test_hosts_that_should_be_the_same_and_are_not_have_a_code(outcomes: list[Outcome], code: int) -> None:
    """Drift is found by a timer, without anybody who reads."""
    verdict = Verdict(expect_same=True)
    for outcome in outcomes:
        verdict.answered(outcome)
    assert verdict.exit_code == code
