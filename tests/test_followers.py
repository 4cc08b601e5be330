import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from conversation import Alone
from program import PATIENCE_SECONDS, count_descriptors, wait_for
from test_lastlog import surroundings_of
from trio_cmd.commands import follow as follow_module
from trio_cmd.commands.follow import COMMAND
from trio_cmd.errors import (
    BadArguments,
    Busy,
    CommandFailed,
    DeadlinePassed,
    NotFound,
    NotPermitted,
    ProgramFailed,
    Unavailable,
)
from trio_cmd.server.deadlines import Sweeper
from trio_cmd.settings import Log
from trio_cmd.wire.messages import Reply, format_reply
from trio_cmd.work import followers, journal, logs, standard_error
from trio_cmd.work.feed import Feed
from trio_cmd.work.followers import Followers
from trio_cmd.work.limiter import FairLimiter, Limit, WaitingRoom
from trio_cmd.work.logs import LogReader
from trio_cmd.work.processes import GroupReaper

pytestmark = pytest.mark.usefixtures("no_orphans")

FakeProgram = Callable[[str, str], None]

# In a script: until the test says so.
WAIT_FOR_GO = "while [ ! -e $(dirname $0)/go ]; do sleep 0.01; done"


def go(log_file: Path) -> None:
    (log_file.parent / "bin" / "go").touch()


@contextlib.contextmanager
def no_limit(command: str, seconds: float) -> Iterator[None]:
    """Keep no deadline."""
    yield


def make_followers(places: int = 16, limit: Limit = no_limit) -> Followers:
    reaper = GroupReaper()
    return Followers(places, LogReader(FairLimiter(1, WaitingRoom(1)), reaper, limit), reaper, limit)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProgram:
    """Put programs of one's own in the place of ``tail`` and ``journalctl``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(logs, "_DIRECTORIES", str(folder))

    def put(name: str, script: str) -> None:
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)

    return put


@asynccontextmanager
async def following(log: Log, feed: Feed, of: Followers | None = None) -> AsyncIterator[None]:
    """Follow a log while this lasts; it must begin, and leave nothing."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon((of or make_followers()).run, log, feed)
            await feed.wait_until_settled()
            yield
            nursery.cancel_scope.cancel()


async def take(feed: Feed) -> tuple[int, bytes]:
    await feed.wait()
    return feed.take(100_000)


async def follow(log: Path, asker: Alone) -> Reply:
    assert COMMAND.work is not None
    with trio.fail_after(PATIENCE_SECONDS):
        return await COMMAND.work(b"", surroundings_of({"app": log}), asker)


# The child


async def test_nothing_is_left_when_nobody_wants_the_lines_any_more(log_file: Path) -> None:
    """Neither a child nor a descriptor, or the host is full one day."""
    before = count_descriptors()
    for _ in range(3):
        feed = Feed()
        async with following(Log(file=str(log_file)), feed):
            with log_file.open("a") as file:
                file.write("new\n")
            assert await take(feed) == (0, b"new\n")
            assert count_descriptors() > before
        assert not feed.is_ended
    await wait_for(lambda: count_descriptors() <= before)


async def test_journal_is_followed_by_its_unit(fake: FakeProgram) -> None:
    """The entries of one service, from now on."""
    fake("journalctl", '#!/bin/sh\necho "$@"\nexec sleep 30\n')
    feed = Feed()
    async with following(Log(journal="ssh.service"), feed):
        assert await take(feed) == (0, b"-f -q --no-pager -o short-iso -n 0 -u ssh.service\n")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 'tail: unknown option -- z' >&2; exit 1",
            "tail exited with status 1: tail: unknown option -- z",
        ),
        ("printf 'a\\n\\033b\\n' >&2; kill -9 $$", "tail was ended by signal 9: \\x1bb"),
        ("exit 0", "tail exited with status 0"),
    ],
)
async def test_child_that_ends_early_is_one_clear_error(
    script: str, message: str, log_file: Path, fake: FakeProgram
) -> None:
    """A host whose tail knows no --pid says so, and does not show an empty log for ever."""
    fake("tail", f"#!/bin/sh\n{script}\n")
    asker = Alone()
    with pytest.raises(ProgramFailed) as caught:
        await follow(log_file, asker)
    assert caught.value.message == message
    assert asker.streamed == []


async def test_child_that_ends_later_is_told_after_what_it_printed(log_file: Path, fake: FakeProgram) -> None:
    """Somebody has killed it: the operator must know that he sees nothing more."""
    fake("tail", f"#!/bin/sh\necho one\necho two\n{WAIT_FOR_GO}\necho gone >&2\nexit 3\n")

    class Waiting(Alone):
        def show(self, lines: Sequence[str], skipped: int) -> None:
            super().show(lines, skipped)
            if "two" in lines:
                go(log_file)

    asker = Waiting()
    reply = await follow(log_file, asker)
    assert asker.streamed == ["Begin follow", "one", "two"]
    assert format_reply(reply, "text", 1, b"follow", 0).decode() == (
        "An error occured : tail exited with status 3: gone\nEnd follow\n"
    )
    assert reply.record == {"log": "app", "lines": 2, "skipped": 0}


@pytest.mark.parametrize(
    ("before", "after"), [(4000, 1), (4050, 1), (4075, 1), (4090, 1), (4200, 1), (20, 4060), (20, 4080)]
)
async def test_no_piece_of_a_token_is_told_of_a_long_last_line(
    before: int, after: int, log_file: Path, fake: FakeProgram
) -> None:
    """An error that is cut for its length does not give away what it was cut in."""
    words = f"one\\n\\n{'x ' * (before // 2)}tcmd_{'S3cret_-' * 6} {'y' * after}"
    fake("tail", f"#!/bin/sh\nprintf '{words}' >&2; sleep 0.05; echo >&2\necho >&2\nexit 3\n")
    feed = Feed()
    async with following(Log(file=str(log_file)), feed):
        await take(feed)
    assert feed.error is not None
    assert feed.error.message.startswith("tail exited with status 3: x x x")
    assert len(feed.error.message) < 4200
    assert "S3c" not in feed.error.message


async def test_child_that_cannot_be_started_is_told(log_file: Path, fake: FakeProgram) -> None:
    """The operator reads why, not the name of an inner step."""
    fake("tail", "\1\2\3")
    before = count_descriptors()
    with pytest.raises(Unavailable) as caught:
        await follow(log_file, Alone())
    assert caught.value.message == "tail cannot be started: Exec format error"
    await wait_for(lambda: count_descriptors() <= before)


@pytest.mark.parametrize("log", [Log(file="/x"), Log(journal="*")])
async def test_host_without_the_program_says_so(log: Log, fake: FakeProgram) -> None:
    """A bare container is no crash."""
    feed = Feed()
    async with following(log, feed):
        assert isinstance(feed.error, NotFound if log.journal else Unavailable)


async def test_child_that_never_rests_is_not_waited_for(
    log_file: Path, fake: FakeProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Begin that never comes would be a command that hangs."""
    monkeypatch.setattr(followers, "_SETTLE_SECONDS", 0.1)
    fake("tail", "#!/bin/sh\nwhile :; do :; done\n")
    feed = Feed()
    async with following(Log(file=str(log_file)), feed):
        assert not feed.is_ended


def test_process_sleeps_where_nothing_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc the following begins at once; where there is, a dead child is none asleep."""
    dead = 2**22 + 1
    assert not followers._is_asleep(dead)
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert followers._is_asleep(dead)


# What the log is replaced by


async def test_lines_of_a_replaced_log_wait_until_it_was_looked_at(
    log_file: Path, fake: FakeProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one line of a file is shown that may not be shown."""
    script = f"echo before\n{WAIT_FOR_GO}\necho replaced >&2\necho after\nexec sleep 30\n"
    fake("tail", f"#!/bin/sh\n{script}")
    looked, may_look = trio.Event(), trio.Event()
    of, feed = make_followers(), Feed()

    async def check(log: Log) -> None:
        looked.set()
        await may_look.wait()

    monkeypatch.setattr(of, "check", check)
    async with following(Log(file=str(log_file)), feed, of):
        assert await take(feed) == (0, b"before\n")
        go(log_file)
        await looked.wait()
        while feed._unchecked_bytes == 0:
            await trio.sleep(0.002)
        assert feed.is_empty
        may_look.set()
        assert await take(feed) == (0, b"after\n")


@pytest.mark.parametrize(("error", "is_shown"), [(NotFound("x"), True), (NotPermitted("x"), False)])
async def test_missing_log_may_come_back_and_a_forbidden_one_ends_it(
    error: CommandFailed,
    is_shown: bool,
    log_file: Path,
    fake: FakeProgram,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two files of a rotation there is none; but what is refused is refused."""
    fake("tail", "#!/bin/sh\necho replaced >&2\necho after\nexec sleep 30\n")
    of, feed = make_followers(), Feed()

    async def check(log: Log) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    monkeypatch.setattr(of, "check", check)
    async with following(Log(file=str(log_file)), feed, of):
        assert await take(feed) == ((0, b"after\n") if is_shown else (0, b""))
        assert feed.error is (None if is_shown else error)


async def test_what_was_said_before_a_line_is_read_before_that_line(
    log_file: Path, fake: FakeProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pipes have no order between them: a busy moment must not let the first forbidden line through."""
    fake("tail", "#!/bin/sh\necho replaced >&2\necho after\nexec sleep 30\n")
    of, feed = make_followers(), Feed()

    async def never_its_turn(self: object) -> None:
        await trio.sleep_forever()

    async def check(log: Log) -> None:
        await trio.lowlevel.checkpoint()
        raise NotPermitted("x")

    monkeypatch.setattr(standard_error.StandardError, "run", never_its_turn)
    monkeypatch.setattr(of, "check", check)
    async with following(Log(file=str(log_file)), feed, of):
        assert await take(feed) == (0, b"")
        assert isinstance(feed.error, NotPermitted)


async def test_log_is_looked_at_again_when_more_is_said_meanwhile(
    log_file: Path, fake: FakeProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rotations in a row: the second file must be looked at too before its lines are shown."""
    fake(
        "tail",
        f"#!/bin/sh\necho one >&2\n{WAIT_FOR_GO}\necho two >&2\necho after\nexec sleep 30\n",
    )
    of, feed = make_followers(), Feed()
    looks: list[bool] = []

    async def check(log: Log) -> None:
        looks.append(feed._unchecked_bytes > 0)
        if len(looks) == 1:
            go(log_file)
            while feed._unchecked_bytes == 0:
                await trio.sleep(0.002)

    monkeypatch.setattr(of, "check", check)
    async with following(Log(file=str(log_file)), feed, of):
        assert await take(feed) == (0, b"after\n")
    assert looks == [False, True]


async def test_look_at_a_dead_disk_has_its_deadline(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, log_file: Path
) -> None:
    """Who asks for a log on a dead disk is told in time."""
    monkeypatch.setattr(followers, "SECONDS", 0.1)
    sweeper = Sweeper(0.05)
    nursery.start_soon(sweeper.run)
    of = make_followers(limit=sweeper.limit)

    async def hang(path: bytes, look: Callable[[], None]) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(of._logs, "run_in_thread", hang)
    with pytest.raises(DeadlinePassed) as caught:
        await of.check(Log(file=str(log_file)))
    assert caught.value.message == "follow not finished in 0.1 s"


async def test_journal_is_looked_for_before_it_is_followed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``journalctl -f`` waits for ever where there is no journal."""
    monkeypatch.setattr(journal, "FOLDERS", (os.fsencode(tmp_path),))
    with pytest.raises(NotFound):
        await make_followers().check(Log(journal="*"))


# Places


def test_places_are_counted_by_address_and_given_back() -> None:
    """One address has four, whoever asks, and those that ended are free again."""
    of = make_followers(places=5)
    with contextlib.ExitStack() as held:
        for _ in range(4):
            held.enter_context(of.place("10.0.0.1"))
        with pytest.raises(Busy, match="4 logs are being followed from your address"), of.place("10.0.0.1"):
            pass
        held.enter_context(of.place("10.0.0.2"))
        with pytest.raises(Busy, match="5 logs are being followed already"), of.place("10.0.0.3"):
            pass
        assert of.running == 5
    assert of.running == 0
    assert not of._running
    with of.place("10.0.0.1"):
        pass


# The command


@pytest.mark.parametrize("argument", [b"app more", b"5 app"])
async def test_words_too_many_are_told(argument: bytes, log_file: Path) -> None:
    """``follow`` has no number of lines: it shows what comes."""
    assert COMMAND.work is not None
    with pytest.raises(BadArguments, match=re.escape("usage: follow [LOG]")):
        await COMMAND.work(argument, surroundings_of({"app": log_file}), Alone())


async def test_lines_that_still_waited_at_the_end_are_counted(
    log_file: Path, fake: FakeProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not shown is said to be missing."""
    fake("tail", f"#!/bin/sh\necho first\n{WAIT_FOR_GO}\necho 1\necho 2\necho 3\nexec sleep 30\n")
    feed = Feed()
    monkeypatch.setattr(follow_module, "Feed", lambda: feed)

    class Slow(Alone):
        """Takes one line and no more, and leaves when three others wait."""

        async def wait_for_room(self) -> None:
            if "first" in self.streamed:
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()

        async def wait_for_end(self) -> None:
            while "first" not in self.streamed:
                await trio.sleep(0.002)
            go(log_file)
            while feed._backlog._bytes < len("1\n2\n3\n"):
                await trio.sleep(0.002)

    asker = Slow()
    reply = await follow(log_file, asker)
    assert asker.streamed == ["Begin follow", "first", "3 lines skipped"]
    assert reply.result == {"log": "app", "lines": 1, "skipped": 3}
    assert reply.error is None
    assert format_reply(reply, "text", 1, b"follow", 0) == b"End follow\n"


async def test_asker_that_is_gone_leaves_nothing(log_file: Path) -> None:
    """A cancelled following has neither child nor descriptor."""
    before = count_descriptors()
    asker = Alone()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, log_file, asker)
        with trio.fail_after(PATIENCE_SECONDS):
            while not asker.streamed:
                await trio.sleep(0.002)
        nursery.cancel_scope.cancel()
    await wait_for(lambda: count_descriptors() <= before)
