"""Runs a script in a process that has imported torch already: a client of `script_server` in processes.py, see there.

python forked_script.py SOCKET SCRIPT [WORD ...]
"""

import json
import os
import socket
import sys

if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(sys.argv[1])
        socket.send_fds(server, [b"\n"], [0, 1, 2])
        server.sendall(json.dumps([sys.argv[2:], dict(os.environ)]).encode() + b"\n")
        with server.makefile() as answer:
            sys.exit(int(answer.readline()))
