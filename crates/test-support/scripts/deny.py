"""Runs a program for which system calls fail: deny.py CALL=ERRNO[,ARGUMENT=VALUE]... -- PROGRAM ARGUMENT...

`socket=EAFNOSUPPORT,0=10` has calls of socket(2) fail whose first argument is 10. The exit code is 99 where
the kernel has no filters, and the program's otherwise.
"""
import ctypes
import errno
import os
import struct
import sys

CALLS = {
    "x86_64": {"socket": 41, "setsockopt": 54, "clone": 56, "clone3": 435},
    "aarch64": {"socket": 198, "setsockopt": 208, "clone": 220, "clone3": 435},
}
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000

separator = sys.argv.index("--")
numbers = CALLS.get(os.uname().machine)
if numbers is None:
    sys.exit(99)

program = b""


def add(code, if_true, if_false, operand):
    global program
    program += struct.pack("HBBI", code, if_true, if_false, operand)


for rule in sys.argv[1:separator]:
    call, *conditions = rule.split(",")
    name, error = call.split("=")
    # A call's number is at offset 0, its arguments follow at 16 with 8 bytes each.
    tests = [(0, numbers[name])]
    tests += [(16 + 8 * int(place), int(value)) for place, value in (c.split("=") for c in conditions)]
    for index, (offset, value) in enumerate(tests):
        behind = 2 * (len(tests) - index - 1) + 1
        add(LOAD, 0, 0, offset)
        add(EQUAL, 0, behind, value)
    add(RETURN, 0, 0, FAIL | getattr(errno, error))
add(RETURN, 0, 0, ALLOW)

libc = ctypes.CDLL(None)
buffer = ctypes.create_string_buffer(program, len(program))
header = struct.pack("HL", len(program) // 8, ctypes.addressof(buffer))
NO_NEW_PRIVILEGES, SECCOMP, FILTER = 38, 22, 2
libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
if libc.prctl(SECCOMP, FILTER, header, 0, 0) != 0:
    sys.exit(99)
os.execv(sys.argv[separator + 1], sys.argv[separator + 1:])
