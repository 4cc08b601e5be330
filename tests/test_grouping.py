from outcomes import answer, digest, failure, silence
from trio_cmd.client.errors import NoAnswer
from trio_cmd.client.grouping import Grouping, key_of
from trio_cmd.client.hosts import parse_host

COMPHASH = b"comphash /etc/hostname"
HOSTS = [*map(parse_host, ["a", "b", "c", "h0", "h1", "h2", "h3", "h4"])]


def test_equal_answers_are_one_group_and_the_largest_is_first() -> None:
    """The host that differs stands out below the many that do not."""
    grouping = Grouping([COMPHASH], HOSTS)
    for outcome in (digest("c", "bb" * 20), digest("b"), digest("a")):
        grouping.add(outcome)
    many, one = grouping.of(COMPHASH)
    assert (grouping.names(many), many.lines) == (["a", "b"], ["File hash is : " + "aa" * 20])
    assert (list(one.hosts), one.lines) == (["c"], ["File hash is : " + "bb" * 20])


def test_groups_of_one_size_stand_in_the_order_of_their_hosts() -> None:
    """Two looks at the same answers show the same, whoever was faster."""
    grouping = Grouping([COMPHASH], HOSTS)
    for number in (3, 1, 4, 0, 2):
        grouping.add(digest(f"h{number}", f"{number:040}"))
    assert [list(group.hosts) for group in grouping.of(COMPHASH)] == [[f"h{number}"] for number in range(5)]


def test_a_command_asked_twice_names_its_hosts_once() -> None:
    """A line that stands twice in a file of commands doubles no count."""
    grouping = Grouping([COMPHASH, COMPHASH], HOSTS)
    for _ in range(2):
        grouping.add(digest("a"))
    (group,) = grouping.of(COMPHASH)
    assert list(group.hosts) == ["a"]


def test_seconds_make_no_difference() -> None:
    """A host that is slower has not drifted."""
    assert key_of(answer("a", "ping", {"pong": True}, 0.1)) == key_of(
        answer("b", "ping", {"pong": True}, 0.2)
    )


def test_the_order_of_keys_makes_no_difference() -> None:
    """Two versions of a server may write the same in another order."""
    assert key_of(answer("a", "x", {"a": 1, "b": 2})) == key_of(answer("b", "x", {"b": 2, "a": 1}))


def test_errors_differ_in_code_message_and_what_was_printed() -> None:
    """What is shown once for many is what each of them has said."""
    outcomes = [
        failure("a", "x"),
        failure("a", "x", code="other"),
        failure("a", "x", message="other"),
        failure("a", "x", result={"lines": ["one"]}),
        failure("a", "x", result={"lines": ["two"]}),
        silence("a"),
        silence("a", NoAnswer("connection refused")),
        answer("a", "x", {}),
    ]
    assert len({key_of(outcome) for outcome in outcomes}) == len(outcomes)
    assert key_of(failure("a", "x")) == key_of(failure("b", "x"))
