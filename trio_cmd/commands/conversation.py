"""The commands of the conversation itself: help, ping, status, format, auth, exit, quit."""

from trio_cmd.commands.table import Command, Identity, Surroundings
from trio_cmd.errors import BadArguments, UnknownCommand
from trio_cmd.escape import escape
from trio_cmd.tokens import is_token
from trio_cmd.wire.messages import Form, Reply

__all__ = ["COMMANDS"]

_PONG = Reply(("pong",), result={"pong": True})
_EXIT = Reply(closes=True)
_FORMS: dict[bytes, Form] = {b"text": "text", b"json": "json"}


def ping(argument: bytes, surroundings: Surroundings) -> Reply:
    """Answer ``pong``; an argument is not looked at."""
    return _PONG


def close(argument: bytes, surroundings: Surroundings) -> Reply:
    """End the conversation; an argument is not looked at."""
    return _EXIT


def show_help(argument: bytes, surroundings: Surroundings) -> Reply:
    """List the commands, or describe one.

    Raises:
        UnknownCommand: there is no such command here.
    """
    rows = list(surroundings.commands.values())
    details: tuple[str, ...] = ()
    if argument:
        row = surroundings.commands.get(argument)
        if row is None:
            raise UnknownCommand
        rows = [row]
        details = () if row.details is None else tuple(row.details(surroundings))
    width = max(len(row.usage) for row in rows)
    lines = [f"{row.usage:{width}}  {row.summary}" for row in rows]
    listed = [{"name": row.name, "usage": row.usage, "summary": row.summary} for row in rows]
    result = {"commands": listed, "details": details} if details else {"commands": listed}
    return Reply([*lines, *details], block="help", result=result)


def status(argument: bytes, surroundings: Surroundings) -> Reply:
    """Say how the server is; an argument is not looked at."""
    values = surroundings.statistics()
    return Reply([f"{name}: {_text(value)}" for name, value in values.items()], block="status", result=values)


def set_form(argument: bytes, surroundings: Surroundings) -> Reply:
    """Choose the form of this answer and all later ones.

    Raises:
        BadArguments: it is neither ``text`` nor ``json``.
    """
    form = _FORMS.get(argument)
    if form is None:
        raise BadArguments("usage: format text|json")
    return Reply((f"Format is : {form}",), result={"format": form}, form=form)


def auth(argument: bytes, identity: Identity) -> Reply:
    """Show a token, and be allowed what its grant names.

    Raises:
        TooManyWrongTokens: there were so many from where the client is that nothing is looked at.
        BadArguments: it has not the form of a token; so it was not compared, nor counted.
        BadToken: it opens no grant.
    """
    identity.check_attempts()
    if not is_token(argument):
        raise BadArguments("usage: auth TOKEN; a token is tcmd_ and 43 letters, digits, - or _")
    name = identity.present(argument)
    return Reply((f"Welcome {name}.",), result={"name": name})


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escape(str(value))


COMMANDS = (
    Command("help", "help [COMMAND]", "list the commands, or describe one", answer=show_help),
    Command("ping", "ping", "answer pong", answer=ping),
    Command("status", "status", "say how the server is", answer=status, counts=True),
    Command("format", "format text|json", "choose the form of the answers", answer=set_form),
    Command("auth", "auth TOKEN", "say who you are, to be allowed more", identify=auth),
    Command("exit", "exit", "close the connection after the answers before it", answer=close),
    Command("quit", "quit", "the same as exit", answer=close),
)
