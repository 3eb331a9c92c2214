"""Runs a program without the right to use privileged ports, even as root:
unprivileged.py PROGRAM ARGUMENT...
"""
import ctypes
import os
import sys

PR_CAPBSET_DROP = 24
CAP_NET_BIND_SERVICE = 10
# Fails for those who have no such right anyway.
ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_NET_BIND_SERVICE, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
