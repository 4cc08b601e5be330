"""Clients that know every answer, and how they leave."""

import trio

from soaking.caller import Caller, World, WrongAnswer
from soaking.place import TOKEN, number_of
from soaking.questions import Answer, Question, ask_ping, ask_something

__all__ = ["GOOD"]

FORMAT = Question(b"format json", (Answer((), {"format": "json"}),))
BUSY = "An error occured : "


def source_of(world: World) -> str:
    """Choose where to come from."""
    return "unix" if world.rng.random() < 0.2 else "127.0.0.1"


def ask(world: World, number: int) -> Question:
    """Ask something, marked by the client and the number."""
    return ask_something(world.place, world.rng, f"{world.name}-{number}")


def wrong_lines(questions: list[Question]) -> int:
    """Count the errors of form: twenty of them end the conversation."""
    return sum(
        any(a.code in {"unknown-command", "bad-arguments", "bad-encoding"} for a in q.answers)
        for q in questions
    )


async def leave(caller: Caller, world: World) -> None:
    """Leave in one of the ways there are."""
    match world.rng.randrange(4):
        case 0:
            await caller.send(world.rng.choice((b"exit\n", b"quit\r\n")))
            await caller.expect_rest(b"", b'{"event":"bye","reason":"exit","message":""}\n')
        case 1:
            await caller.end()
            await caller.expect_rest(b"")
        case 2:
            caller.reset()
        case _:
            pass  # closes


async def talk(world: World, *, is_json: bool) -> None:
    """Ask one thing after the other."""
    async with await world.connect(source_of(world)) as caller:
        if is_json:
            await caller.send(b"format json\n")
            await caller.expect(FORMAT, is_json=True)
        for number in range(world.rng.randint(1, 15)):
            question = ask(world, number)
            await caller.send(question.line + b"\n")
            await caller.expect(question, is_json=is_json)
        await leave(caller, world)


async def talk_in_text(world: World) -> None:
    """Ask one thing after the other, as people do."""
    await talk(world, is_json=False)


async def talk_in_json(world: World) -> None:
    """Ask one thing after the other, as programs do."""
    await talk(world, is_json=True)


async def pipeline(world: World) -> None:
    """Ask all at once, in any cut of the bytes, and take the answers in order."""
    questions = [ask(world, number) for number in range(world.rng.randint(2, 120))]
    while wrong_lines(questions) >= 20:
        questions.pop()
    is_json = world.rng.random() < 0.5
    if is_json:
        questions.insert(0, FORMAT)
    data = b"".join(question.line + world.rng.choice((b"\n", b"\r\n")) for question in questions)
    async with await world.connect(source_of(world)) as caller, trio.open_nursery() as nursery:
        nursery.start_soon(send_cut, caller, data, world)
        for question in questions:
            await caller.expect(question, is_json=is_json)
        await caller.expect_rest(b"")


async def send_cut(caller: Caller, data: bytes, world: World) -> None:
    """Send in pieces, and shut the sending side."""
    cuts = sorted(world.rng.randrange(len(data)) for _ in range(world.rng.randint(0, 6)))
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if not await caller.try_send(data[begin:end]):
            return  # who takes the answers says why
        await trio.sleep(world.rng.choice((0, 0.001, 0.02)))
    await caller.end()


async def follow(world: World) -> None:
    """Follow what is written, without a gap, and go on to ask."""
    async with await world.connect(source_of(world)) as caller:
        await caller.send(b"follow growing\n")
        first = await caller.line()
        if first.startswith(BUSY):
            world.ledger.met["busy"] += 1
            return
        if first != "Begin follow":
            raise WrongAnswer(f"follow was answered {first!r}")
        await take_numbers(caller, world.rng.randint(1, 30))
        await caller.send(b"ping\n")
        while (line := await caller.line()) != "End follow":
            if not line.endswith("lines skipped"):
                number_of(line)
        await caller.expect(ask_ping(""))


async def take_numbers(caller: Caller, count: int) -> None:
    """Take so many lines of the growing log; those that were skipped are counted.

    Raises:
        WrongAnswer: one is missing, or comes again.
    """
    expected = 0
    for _ in range(count):
        line = await caller.line()
        if line.endswith(" lines skipped"):
            expected += int(line.split()[0]) if expected else 0
            continue
        number = number_of(line)
        if expected and number != expected:
            raise WrongAnswer(f"line {number} was followed where {expected} was next")
        expected = number + 1


async def see_the_newest(world: World) -> None:
    """Ask for the newest lines: no answer is older than its question, none has a gap."""
    async with await world.connect(source_of(world)) as caller:
        for _ in range(world.rng.randint(1, 5)):
            grown = world.place.grown
            await caller.send(b"lastlog 20 growing\n")
            lines = await caller.text_answer()
            if lines[0].startswith(BUSY):
                world.ledger.met["busy"] += 1
                continue
            numbers = [number_of(line) for line in lines[1:-1]]
            least = min(grown, 20)
            if len(numbers) < least or numbers != [*range(numbers[0], numbers[0] + len(numbers))]:
                raise WrongAnswer(f"the newest of {grown} lines are {numbers}")
            if not grown <= numbers[-1] <= world.place.grown + 1:
                raise WrongAnswer(f"of {grown} lines the newest is {numbers[-1]}")
            world.ledger.answers += 1


async def show_a_token(world: World) -> None:
    """Be nobody, show the token, and be somebody."""
    async with await world.connect("127.0.0.2") as caller:
        await caller.send(b"ping\nauth %s\n" % TOKEN.encode())
        refused, welcome = await caller.line(), await caller.line()
        if (refused, welcome) != ("An error occured : ping is not allowed here", "Welcome shown."):
            raise WrongAnswer(f"a token was answered {refused!r}, {welcome!r}")
        question = ask(world, 0)
        await caller.send(question.line + b"\n")
        await caller.expect(question)


async def look(world: World) -> None:
    """Ask for help and status, as whoever wants to know what this is."""
    async with await world.connect(source_of(world)) as caller:
        await caller.send(b"help\nstatus\n")
        helped, status = await caller.text_answer(), await caller.text_answer()
        if "status" not in " ".join(helped) or not any(line.startswith("clients: ") for line in status):
            raise WrongAnswer(f"help and status were answered {helped}, {status}")


GOOD = {
    talk_in_text: 10,
    talk_in_json: 8,
    pipeline: 6,
    follow: 2,
    see_the_newest: 3,
    show_a_token: 2,
    look: 1,
}
"""What good clients do, and how often beside the others."""
