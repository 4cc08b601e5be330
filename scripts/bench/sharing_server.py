"""The server as ``bench/sharing.py`` asks it: it counts its children, and can be told to share nothing.

    python scripts/bench/sharing_server.py shared|alone FILE [arguments of trio_cmd]

``alone`` makes each question differ from all others, so that no two share a run; there is no
setting for that.  At the end FILE holds how many children there were, and how many at once.
"""

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from trio_cmd.cli import main
from trio_cmd.server import workshop
from trio_cmd.work import logs
from trio_cmd.work.processes import run_program
from trio_cmd.work.runs import Question, Run, Sharer, Told
from trio_cmd.work.sharing import Sharing


class Children:
    """Runs programs and counts them."""

    def __init__(self) -> None:
        self.started = self.running = self.most = 0

    async def run(self, *args: Any, **options: Any) -> int:
        """See ``run_program``."""
        self.started += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await run_program(*args, **options)
        finally:
            self.running -= 1


class Alone(Sharing):
    """Shares nothing: each question has a key of its own."""

    def join(self, question: Question, asker: Sharer, told: Told) -> Run:
        """See ``Sharing.join``."""
        return super().join(question._replace(key=object()), asker, told)


KINDS = {"shared": Sharing, "alone": Alone}


def serve(kind: str, counts: Path, *args: str) -> int:
    """Run the program and leave the counts."""
    children = Children()
    with patch.object(logs, "run_program", children.run), patch.object(workshop, "Sharing", KINDS[kind]):
        code = main(args)
    counts.write_text(f"{children.started} {children.most}")
    return code


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
