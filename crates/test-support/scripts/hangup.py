"""Runs a server on a terminal of its own that is closed once it listens: hangup.py PROGRAM ARGUMENT...

Standard error is the server's, the exit code too.
"""
import os
import pty
import signal
import sys

from_server, to_here = os.pipe()
child, terminal = pty.fork()
if child == 0:
    # Whatever runs the tests may ignore it, as `nohup` does, and the server would inherit that.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.dup2(to_here, 2)
    os.execv(sys.argv[1], sys.argv[1:])
os.close(to_here)

said = b""
while chunk := os.read(from_server, 4096):
    said += chunk
    if terminal is not None and b"listening on " in said:
        os.close(terminal)
        terminal = None

sys.stderr.buffer.write(said)
sys.stderr.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
