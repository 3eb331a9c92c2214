"""Runs a program on a terminal of its own: terminal.py PROMPT INPUT... -- PROGRAM ARGUMENT...

Each input is typed when the program prompts for it. Standard output is what the terminal has
shown, the exit code is the program's.
"""
import os
import pty
import sys

separator = sys.argv.index("--")
prompt, *inputs = (os.fsencode(argument) for argument in sys.argv[1:separator])
program = sys.argv[separator + 1:]

child, terminal = pty.fork()
if child == 0:
    os.execv(program[0], program)

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
    while typed < len(inputs) and shown.count(prompt) > typed:
        os.write(terminal, inputs[typed])
        typed += 1

sys.stdout.buffer.write(shown)
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
