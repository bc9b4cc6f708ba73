#!/usr/bin/env python3
"""Becomes the program in its arguments, with a connected descriptor to inherit: AMESH_FD (local-api.md 1.2), as a supervisor would hand it over."""
import os
import socket
import sys

sock = socket.socket(socket.AF_UNIX)
sock.connect(os.environ.pop("AMESH_SOCK"))
sock.set_inheritable(True)
os.environ["AMESH_FD"] = str(sock.fileno())
os.execv(sys.argv[1], sys.argv[1:])
