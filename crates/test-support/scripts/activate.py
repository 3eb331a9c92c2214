"""Starts a program as a service manager does: activate.py SOCKET... -- PROGRAM ARGUMENT...

A socket is udp:HOST, tcp:HOST, unix: for a nameless one, unbound:, connected:HOST, or stdin: for the one that
standard input is. They become descriptors 3, 4 and so on.
"""
import os
import socket
import sys

separator = sys.argv.index("--")
program = sys.argv[separator + 1:]


def opened(what):
    kind, _, host = what.partition(":")
    if kind == "stdin":
        return socket.socket(fileno=os.dup(0))
    if kind == "unix":
        return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if kind == "unbound":
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    type = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    made = socket.socket(family, type)
    made.bind((host, 0))
    if kind == "connected":
        made.connect((host, 9))
    made.setblocking(False)  # As systemd leaves them.
    return made


# Out of the way first: one may have a descriptor that another is to get.
sockets = [opened(what) for what in sys.argv[1:separator]]
copies = [os.dup(made.fileno()) for made in sockets]
copies = [os.dup2(copy, 100 + index) for index, copy in enumerate(copies)]
for index, copy in enumerate(copies):
    os.dup2(copy, 3 + index, inheritable=True)

os.environ["LISTEN_FDS"] = str(len(sockets))
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(program[0], program)
