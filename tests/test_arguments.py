"""What a client types fills the places of an argv, and nothing else ever does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_cmd.arguments import ArgvTemplate, Part, Pattern, check_argv, check_pattern, split_element
from trio_cmd.errors import BadArguments

UNIT: dict[str, Pattern] = {"name": "[a-z0-9@.-]+"}
TWO: dict[str, Pattern] = {"action": ["start", "stop"], "rest": "[a-z -]+"}


def fill(argv: list[str], arguments: dict[str, Pattern], argument: bytes) -> list[bytes]:
    return ArgvTemplate("unit", argv, arguments).fill(argument)


def refusal(argv: list[str], arguments: dict[str, Pattern], argument: bytes) -> str:
    """What a client is told whose argument does not fit."""
    with pytest.raises(BadArguments) as caught:
        fill(argv, arguments, argument)
    return caught.value.message


# The text of the settings


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{name}", "web"),
        ("--unit={name}.service", "--unit=web.service"),
        ("{name}{name}", "webweb"),
        ("{{name}}", "{name}"),
        ("{{{name}}}", "{{name}}"),
        ("{{name}", "{web"),
        ("{name}}", "web}"),
        ("{{name}}{name}", "{name}web"),
        ("{}", "{}"),
        ("{{}}", "{{}}"),
        ("{Name}", "{Name}"),
        ("{0}", "{0}"),
        ("{name!r}", "{name!r}"),
        ("{name.__class__}", "{name.__class__}"),
        ("{name[0]}", "{name[0]}"),
        ("{name:>99}", "{name:>99}"),
        ("{ name }", "{ name }"),
        ("${HOME} $(id) `id` %s", "${HOME} $(id) `id` %s"),
        ("awk '{ print $1 }'", "awk '{ print $1 }'"),
        ("\u00e4{name}", "\u00e4web"),
        ("", ""),
    ],
)
def test_only_a_name_in_single_braces_is_a_place(text: str, filled: str) -> None:
    """The operator writes awk and JSON into argv as they are; no format language looks at them."""
    assert fill(["/x", text, "{name}"], UNIT, b"web") == [b"/x", filled.encode(), b"web"]


@given(st.text(st.sampled_from("{}ab_1-")))
def test_an_element_is_cut_into_all_of_its_text(text: str) -> None:
    """Whatever braces an element has, no character of it is lost or made up."""
    parts = split_element(text)
    spelled = "".join(f"{{{part.text}}}" if part.is_place else part.text for part in parts)
    assert spelled.replace("{", "").replace("}", "") == text.replace("{", "").replace("}", "")
    assert len(spelled) <= len(text)


def test_a_place_and_a_text_are_told_apart() -> None:
    """The same five characters are one or the other by their braces alone."""
    assert split_element("{ab}{{ab}}") == (Part("ab", is_place=True), Part("{ab}", is_place=False))


# What a client types


def test_the_usage_names_the_arguments() -> None:
    """Help says what to type."""
    assert ArgvTemplate("unit", ["/x", "{action}", "{rest}"], TWO).usage == "unit ACTION REST"
    assert ArgvTemplate("uptime", ["/x"], {}).usage == "uptime"


def test_words_fill_the_places_in_the_order_of_the_table() -> None:
    """The operator chooses the order in argv, and the client types in the order of help."""
    argv = ["/x", "{rest}", "{action}"]
    assert fill(argv, TWO, b"start web") == [b"/x", b"web", b"start"]


def test_the_last_argument_takes_the_rest() -> None:
    """A text with blanks is one element of argv, never two."""
    assert fill(["/x", "{action}", "{rest}"], TWO, b"stop \t a b  c") == [b"/x", b"stop", b"a b  c"]


@pytest.mark.parametrize("argument", [b"", b"start"])
def test_every_argument_is_required(argument: bytes) -> None:
    """A program is never run with an empty word where a name should be."""
    assert refusal(["/x", "{action}", "{rest}"], TWO, argument) == "usage: unit ACTION REST"


def test_a_program_without_arguments_takes_none() -> None:
    """What was typed is not silently left out."""
    assert fill(["/x"], {}, b"") == [b"/x"]
    assert refusal(["/x"], {}, b"more") == "usage: unit"


@pytest.mark.parametrize("argument", [b"web;id", b"../web", b"WEB", b"web\t", b"a b", b"$(id)", b"web\n"])
def test_an_argument_must_match_as_a_whole(argument: bytes) -> None:
    """A beginning that fits lets nothing else in behind it."""
    assert refusal(["/x", "{name}"], UNIT, argument) == "expected NAME as [a-z0-9@.-]+: unit NAME"


@pytest.mark.parametrize("argument", ["\u0663", "\u00e4", "\uff41"])
def test_an_argument_is_ascii(argument: str) -> None:
    """A digit of another script is no digit, whatever the pattern says."""
    assert "expected NAME" in refusal(["/x", "{name}"], {"name": r"[\d\w]+"}, argument.encode())
    assert "expected NAME" in refusal(["/x", "{name}"], {"name": "[^/]+"}, argument.encode())
    assert "expected NAME" in refusal(["/x", "{name}"], {"name": "[^/]+"}, b"\xff")


def test_an_argument_has_at_most_128_bytes() -> None:
    """A name is a name and no load."""
    assert fill(["{name}"], UNIT, b"a" * 128) == [b"a" * 128]
    assert refusal(["{name}"], UNIT, b"a" * 129) == "NAME is longer than 128 bytes: unit NAME"


def test_a_choice_is_one_of_its_words() -> None:
    """The operator lists what may be said, and the client is told the list."""
    told = "expected ACTION as one of start, stop: unit ACTION REST"
    for word in (b"star", b"starts", b"restart", b"START"):
        assert refusal(["{action}{rest}"], TWO, word + b" x") == told


@pytest.mark.parametrize(
    ("element", "argument"),
    [("{name}", b"-rf"), ("{name}", b"-"), ("{name}=x", b"--root"), ("{name}-", b"-")],
)
def test_an_argument_cannot_become_an_option(element: str, argument: bytes) -> None:
    """Only the settings decide which options a program gets."""
    assert refusal(["/x", element], UNIT, argument) == "NAME must not begin with a dash: unit NAME"


@pytest.mark.parametrize("element", ["-{name}", "--unit={name}", "unit={name}"])
def test_an_argument_may_begin_with_a_dash_behind_text_of_the_settings(element: str) -> None:
    """There it cannot be taken for an option that the operator did not write."""
    assert fill(["/x", element], UNIT, b"-a") == [b"/x", element.replace("{name}", "-a").encode()]


@given(st.binary(max_size=300))
def test_any_argument_is_an_argv_or_one_line(argument: bytes) -> None:
    """No client can bring more than one word of its own characters into an element."""
    told, argv = "", [b"/x", b"", b""]
    try:
        argv = fill(["/x", "--unit={name}", "{name}"], UNIT, argument)
    except BadArguments as error:
        told = error.message
    assert told.isprintable()
    assert len(argv) == 3
    assert set(argv[2]) <= set(b"abcdefghijklmnopqrstuvwxyz0123456789@.-")
    assert not argv[2].startswith(b"-")


# What the settings may say


@pytest.mark.parametrize(
    "pattern",
    [
        *("[a-z]+", "[a-z0-9@.-]{1,16}", "[^/ ]+", r"[\w.-]+", r"[\]\[]+", "[+]+", "[{}]{1,2}", "[ -~]+"),
        *(["one"], ["start", "stop", "a.b-c_d@e"], ("tuple",)),
    ],
)
def test_a_class_with_a_quantifier_or_words_are_patterns(pattern: object) -> None:
    """What can be seen at a glance to let in what it names."""
    check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "a", ".*", "[a-z]", "[a-z]*", "[a-z]?", "[a-z]{3}", "[a-z]{3,}", "[a-z]{,3}", "[a-z]{5,2}"),
        *("[a-z]+x", "x[a-z]+", "[a-z]+[0-9]+", "([a-z]+)", "[a-z]+|.*", "^[a-z]+$", "[a-z]++", "[a-z]+?"),
        *("[]+", "[^]+", "[z-a]+", "[a-z", "[[a]+", "[a--b]+", "[a&&b]+", r"[\q]+", "[a-z]+\n", "(?s)[a]+"),
        *("[a-z]{1,1234}", ["a", ""], ["a b"], ["\u00e4"], ["x" * 129], [1], [], 5, None, {"a": "b"}, True),
    ],
)
def test_anything_else_is_no_pattern(pattern: object) -> None:
    """A pattern that must be thought about is one that lets in what nobody thought of."""
    with pytest.raises(ValueError, match="expected one character class with") as caught:
        check_pattern(pattern)
    assert str(caught.value) == "expected one character class with + or {m,n}, or a list of words"


def test_a_place_without_a_pattern_is_told() -> None:
    """No default lets in whatever a client types; the remedy is in the line."""
    with pytest.raises(ValueError, match="has no pattern") as caught:
        check_argv(["/x", "a{nam}"], {"name": "[a-z]+"})
    assert str(caught.value) == "{nam} has no pattern under arguments; the text is written {{nam}}"


def test_an_argument_without_a_place_is_told() -> None:
    """A client would be asked for a word that nothing is done with."""
    with pytest.raises(ValueError, match=r"^expected \{name\} for the argument of this name$"):
        check_argv(["/x", "{{name}}"], UNIT)


def test_the_program_itself_is_no_argument() -> None:
    """A client may say what a program is told, never which one is run."""
    with pytest.raises(ValueError, match=r"^the program itself cannot be an argument$"):
        check_argv(["/bin/{name}", "{name}"], UNIT)
    check_argv(["/bin/{{name}}", "{name}"], UNIT)
