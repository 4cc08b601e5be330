"""Between bytes and values: lines, messages, and the stream they travel on.

``lines`` and ``messages`` do no I/O; ``stream`` does nothing else.
"""
