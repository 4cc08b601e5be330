import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_cmd.client.folding import fold_names
from trio_cmd.client.hosts import expand_hosts


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], []),
        (["web"], ["web"]),
        (["web01", "web02", "web03"], ["web[01-03]"]),
        (["web2", "web1"], ["web[1-2]"]),
        (["web8", "web9", "web10", "web12"], ["web[8-10,12]"]),
        (["web1", "web3"], ["web[1,3]"]),
        (["web01", "web1"], ["web[1,01]"]),
        (["web1", "web1"], ["web1"]),
        (["web1", "db1", "web2"], ["web[1-2]", "db1"]),
        (["127.0.1.1:9999", "127.0.1.2:9999"], ["127.0.1.[1-2]:9999"]),
        (["a1b1", "a1b2", "a2b1"], ["a1b[1-2]", "a2b1"]),
        (["web1.example:9999", "web1.example:9998"], ["web1.example:[9998-9999]"]),
        (["rack1-web1", "rack1-web2", "rack2-web1"], ["rack1-web[1-2]", "rack2-web1"]),
    ],
)
def test_names_that_differ_in_one_number_are_one_word(names: list[str], words: list[str]) -> None:
    """Two hundred hosts that are the same must not hide the one that is not."""
    assert fold_names(names) == words


@pytest.mark.parametrize("name", ["[::1]:999{}", "fe80::{}", "unix:/run/a{}", "web1234567890{}"])
def test_what_a_range_cannot_name_is_not_folded(name: str) -> None:
    """Each word can be given to ask again, so it must not mean something else there."""
    names = [name.format(1), name.format(2)]
    assert fold_names(names) == names


@settings(max_examples=40)
@given(st.lists(st.from_regex(r"[a-z]{1,2}[0-9]{1,3}(-[0-9]{1,2})?(:[1-9][0-9]{0,3})?", fullmatch=True)))
def test_folded_names_expand_to_themselves(names: list[str]) -> None:
    """What was folded can be copied into the next question and asks the same hosts."""
    expanded = [host.name for word in fold_names(names) for host in expand_hosts(word)]
    assert sorted(expanded) == sorted(set(names))
