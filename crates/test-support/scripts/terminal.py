"""Runs a program on a terminal of its own:
terminal.py COLUMNSxROWS READY INPUT... -- PROGRAM ARGUMENT...

Each input is typed when the program has written READY once more; one that is the name of a signal,
such as SIGTERM, is sent as a signal instead. Standard output is what the terminal has been sent,
the exit code is the program's, or 128 and the signal that ended it. It is an error of its own if
the program leaves the terminal with other settings than it found.
"""
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios

separator = sys.argv.index("--")
size, ready, *inputs = sys.argv[1:separator]
columns, rows = map(int, size.split("x"))
ready = os.fsencode(ready)

terminal, its_end = os.openpty()
fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
settings = termios.tcgetattr(its_end)
program = subprocess.Popen(
    sys.argv[separator + 1:],
    stdin=its_end,
    stdout=its_end,
    stderr=its_end,
    start_new_session=True,
    preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
)
os.close(its_end)

shown = b""
typed = 0
while True:
    try:
        read = os.read(terminal, 4096)
    except OSError:  # Linux says EIO when the program has ended.
        break
    if not read:
        break
    shown += read
    while typed < len(inputs) and shown.count(ready) > typed:
        if inputs[typed] in signal.Signals.__members__:
            program.send_signal(signal.Signals[inputs[typed]])
        else:
            os.write(terminal, os.fsencode(inputs[typed]))
        typed += 1

code = program.wait()
sys.stdout.buffer.write(shown)
sys.stdout.flush()
if termios.tcgetattr(terminal) != settings:
    sys.exit("the program has left the terminal with other settings")
if typed < len(inputs):
    sys.exit(f"the program has ended before {inputs[typed]!r} could be typed")
sys.exit(128 - code if code < 0 else code)
