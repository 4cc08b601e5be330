import resource
from typing import Any

import pytest

from trio_cmd.client.descriptors import fit_connections

INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("wanted", "soft", "hard", "fits", "left"),
    [
        (64, 1024, 1024, 64, 1024),
        (64, INFINITY, INFINITY, 64, INFINITY),
        (1000, 1024, 4096, 1000, 2032),
        (1000, 1024, INFINITY, 1000, 2032),
        (1000, 256, 256, 112, 256),
        (1000, 256, 512, 240, 512),
        (64, 20, 20, 1, 20),
    ],
)
def test_as_many_connections_as_the_limit_allows(
    monkeypatch: pytest.MonkeyPatch, wanted: int, soft: int, hard: int, fits: int, left: int
) -> None:
    """Many hosts at once need no `ulimit` first, and a low limit is kept to instead of met."""
    limits = [soft, hard]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.__setitem__(slice(None), new))
    assert fit_connections(wanted) == fits
    assert limits == [left, hard]


def test_a_limit_that_cannot_be_raised_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel says no, fewer hosts are asked at once."""

    def refuse(*_: Any) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert fit_connections(1000) == 112
