"""The programs that the settings offer: each is a row of the table, like any other command.

A program's lines can look like the server's own in text; in JSON they are strings of its result.
"""

from collections.abc import Mapping

from trio_cmd.arguments import ArgvTemplate
from trio_cmd.commands.table import Asker, Command, Surroundings, Work
from trio_cmd.errors import OutputTooLong
from trio_cmd.escape import escape
from trio_cmd.settings import Program
from trio_cmd.wire.messages import Reply
from trio_cmd.work.programs import Programs, Run
from trio_cmd.work.sharing import Run as SharedRun

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
    work = _make_work(name, program, template, programs)
    return Command(name, template.usage, escape(program.summary) or _NO_SUMMARY, work=work)


def _make_work(name: str, program: Program, template: ArgvTemplate, programs: Programs) -> Work:
    async def work(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
        """Run the program.

        Raises:
            BadArguments: the argument does not fill the places of its argv.
            CommandFailed: why it cannot be run.

        Cancel: nobody of its group is left, unless others asked for the same.
        """
        argv = template.fill(argument)
        room = program.seconds, program.max_output_bytes

        async def run(shared: SharedRun) -> Reply:
            return _reply(name, await programs.run(name, argv, *room, asker.client, shared.begin))

        return await surroundings.sharing.run(("program", name, tuple(argv)), asker, run)

    return work


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
