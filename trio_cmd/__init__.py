"""A small, read-only, auditable window into a host, over a socket.

The map, from the bottom; each layer imports only what is above it here:

* ``tokens``, ``escape``, ``complaints``, ``errors``: tokens and how they are hidden, text made safe,
  what the person at the terminal is told, what can go wrong.
* ``addresses``, ``arguments``, ``executables``: what settings are made of.  ``settings``: all of them.
* ``records``: what is recorded.  ``wire``: between bytes and values.  ``work``: slow things.
* ``commands``: what a client can ask; one row of one table per command.
* ``server``: listeners, who may connect, clients, their conversations; reload, systemd, metrics.
* ``client``: the other end, which knows nothing of the server but ``wire`` and what is below it.
* ``serving``, ``cli``: the server as a program, and the command line, which runs it or asks.

A line's journey: ``server.session`` receives bytes, ``wire.lines`` cuts them, ``wire.messages``
reads a request, ``commands`` finds its row, ``server.jobs`` has ``work`` do what is slow,
``server.sending`` lets the answers leave in the order asked; ``server.trail`` records it all.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
