"""The newest whole lines that fit."""

from hypothesis import example, given
from hypothesis import strategies as st

from trio_cmd.work.newest import Newest


def keep_newest(data: bytes, max_bytes: int) -> tuple[bytes, int]:
    """The rule itself, in the slow way: leave out whole lines from the beginning until the rest fits."""
    lines = data.splitlines(keepends=True)
    skipped = 0
    while sum(map(len, lines)) > max_bytes:
        del lines[0]
        skipped += 1
    return b"".join(lines), skipped


@given(st.lists(st.text("ab\n", max_size=12).map(str.encode)), st.integers(1, 30))
@example([b"aaaa\n", b"b\n"], 2)
@example([b"aaaa", b"aaaa"], 4)
@example([b"\n\n\n"], 1)
def test_any_cut_of_the_output_keeps_the_same_newest_lines(pieces: list[bytes], max_bytes: int) -> None:
    """What is shown and what is counted as skipped does not hang on how a pipe cuts its bytes."""
    output = Newest(max_bytes)
    for piece in pieces:
        output.add(piece)
        assert len(output._pieces) <= 1 or output._kept_bytes - len(output._pieces[0]) <= max_bytes
    assert output.finish() == keep_newest(b"".join(pieces), max_bytes)
