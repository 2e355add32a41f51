# SPDX-License-Identifier: MIT
"""launchctl: hands what it is asked for to launchd."""

import json
import socket
import sys

with socket.socket(socket.AF_UNIX) as connection:
    connection.connect("/private/var/db/standin/launchd.sock")
    connection.sendall(json.dumps(sys.argv[1:]).encode() + b"\n")
    status, out, err = json.loads(connection.makefile("rb").read())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(status)
