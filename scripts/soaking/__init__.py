"""The parts of the soak, from what is judged to what is done.

growth     samples of the server enter, what has grown leaves            (no I/O)
records    lines of the record enter, what is wrong with them leaves     (no I/O)
accounts   what clients, record and ``status`` say is compared           (no I/O)
place      the folder: files, logs, settings, and what is known of them
questions  what can be asked there, and each right answer                (no I/O)
secured    TLS over a socket, for a client
caller     one client: a connection, its lines, and their deadlines
good       clients that know every answer
bad        clients of the manual's list of what a bad client can do
unshaken   those of them that are bad at TLS
crowd      who comes, and when
server     the server as a process, its record, its samples
changes    reloads and rotations
course     all of it, from start to report
report     the figures, for people
"""
