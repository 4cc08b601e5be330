"""The programs that the settings offer: each is a row of the table, like any other command.

A program's lines can look like the server's own in text; in JSON they are strings of its result.
"""

from collections.abc import Hashable, Mapping

from trio_cmd.arguments import ArgvTemplate
from trio_cmd.commands.table import Command, Share, Surroundings, work_shared
from trio_cmd.errors import OutputTooLong
from trio_cmd.escape import escape
from trio_cmd.settings import Program
from trio_cmd.wire.messages import Reply
from trio_cmd.work.programs import Programs, Run
from trio_cmd.work.runs import Question
from trio_cmd.work.runs import Run as SharedRun

__all__ = ["program_rows"]

_NO_SUMMARY = "run a program of this host"


def program_rows(offered: Mapping[str, Program], programs: Programs) -> dict[bytes, Command]:
    """Make the rows of the programs that are offered.

    Args:
        offered: by their names, checked.
        programs: runs them.
    """
    return {name.encode(): _row(name, program, programs) for name, program in offered.items()}


def _row(name: str, program: Program, programs: Programs) -> Command:
    template = ArgvTemplate(name, program.argv, program.arguments)
    share = _make_share(name, program, template, programs)
    summary = escape(program.summary) or _NO_SUMMARY
    return Command(name, template.usage, summary, work=work_shared(share), share=share)


def _make_share(name: str, program: Program, template: ArgvTemplate, programs: Programs) -> Share:
    def share(argument: bytes, _: Surroundings, client: Hashable) -> Question:
        """Say what runs the program, or raises why it cannot be run.

        Raises:
            BadArguments: the argument does not fill the places of its argv.
        """
        argv = template.fill(argument)
        room = program.seconds, program.max_output_bytes

        async def run(shared: SharedRun) -> Reply:
            return _reply(name, await programs.run(name, argv, *room, client, shared.begin))

        return Question(("program", name, tuple(argv)), run)

    return share


def _reply(name: str, run: Run) -> Reply:
    is_cut = isinstance(run.error, OutputTooLong)
    status = {} if run.exit_status is None else {"exit_status": run.exit_status}
    return Reply(
        run.lines,
        block=name,
        result={"lines": run.lines, "exit_status": run.exit_status, "truncated": is_cut},
        error=run.error,
        record={"lines": len(run.lines), **status},
    )
