"""The tutorial's server in the Twisted of today, on epoll, with its own log and its own threads.

    python twisted_server.py PORT LOG RECORD

``lastlog`` is ``getProcessOutput`` of ``tail``, ``comphash`` a function given to ``deferToThread``,
and everything is said by ``log.msg`` to the file RECORD.
"""

import hashlib
import sys

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import reactor  # noqa: E402 - which one it is was just chosen
from twisted.internet.defer import Deferred  # noqa: E402 - as plain as the others
from twisted.internet.interfaces import IAddress  # noqa: E402
from twisted.internet.protocol import ServerFactory, connectionDone  # noqa: E402
from twisted.internet.threads import deferToThread  # noqa: E402
from twisted.internet.utils import getProcessOutput  # noqa: E402
from twisted.logger import globalLogBeginner, textFileLogObserver  # noqa: E402
from twisted.protocols.basic import LineReceiver  # noqa: E402
from twisted.python import log  # noqa: E402
from twisted.python.failure import Failure  # noqa: E402

CHUNK_BYTES = 1 << 16


class CmdProtocol(LineReceiver):
    """One client's conversation."""

    delimiter = b"\n"

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's names
        """Greet nobody, but record it."""
        self.client = self.transport.getPeer().host
        log.msg(f"Client connection from {self.client}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """Record the end."""
        log.msg(f"Lost client connection. Reason: {reason.getErrorMessage()}")

    def lineReceived(self, line: bytes) -> None:  # noqa: N802
        """Answer one line, or let somebody else do it."""
        text = line.rstrip(b"\r").decode("utf-8", "surrogateescape")
        log.msg(f"Cmd received from {self.client} : {text}")
        command, _, argument = text.partition(" ")
        if command == "lastlog":
            output = getProcessOutput("/usr/bin/tail", ("-n", "10", self.factory.syslog))
            self.answer_later(text, output.addCallback(show_log))
        elif command == "comphash" and argument:
            digest = deferToThread(digest_file, argument)
            self.answer_later(text, digest.addCallback(show_digest))
        elif command == "exit":
            self.complete(text)
            self.transport.loseConnection()
        else:
            self.answer(b"pong" if command == "ping" else b"Command not found.", text)

    def answer_later(self, text: str, answer: Deferred[bytes]) -> None:
        """Send an answer when it is there, or what went wrong."""
        answer.addErrback(lambda failure: f"An error occured : {failure.getErrorMessage()}".encode())
        answer.addCallback(self.answer, text)

    def answer(self, answer: bytes, text: str) -> None:
        """Send an answer."""
        self.sendLine(answer)
        self.complete(text)

    def complete(self, text: str) -> None:
        """Record the end of a command."""
        log.msg(f"Cmd completed for {self.client} : {text}")


class CmdFactory(ServerFactory):
    """Makes a conversation for each client.

    Args:
        syslog: the path of what ``lastlog`` shows.
    """

    noisy = False

    def __init__(self, syslog: str) -> None:
        self.syslog = syslog

    def buildProtocol(self, addr: IAddress) -> CmdProtocol:  # noqa: N802
        """Make one."""
        protocol = CmdProtocol()
        protocol.factory = self
        return protocol


def show_log(output: bytes) -> bytes:
    """Bracket the newest lines."""
    return b"Begin lastlog\n" + output + b"End lastlog"


def show_digest(digest: str) -> bytes:
    """Say a digest."""
    return f"File hash is : {digest}".encode()


def digest_file(path: str) -> str:
    """Hash a file in chunks."""
    digest = hashlib.sha1()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


if __name__ == "__main__":
    port, syslog, record = sys.argv[1:]
    with open(record, "a", encoding="utf-8") as file:
        globalLogBeginner.beginLoggingTo([textFileLogObserver(file)], redirectStandardIO=False)
        reactor.listenTCP(int(port), CmdFactory(syslog), backlog=1024, interface="127.0.0.1")
        reactor.run()
