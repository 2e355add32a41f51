# SPDX-License-Identifier: MIT
"""Runs a command of storewarden in this process, and prints how often it looked at what.

    python counted.py STORE_DIR WORD...

As JSON on stderr's last line: what Python's own audit events (PEP 578) tell of it.
"""

import json
import os
import sys
from collections import Counter

from storewarden.cli import main

seen: Counter[str] = Counter()


def count(event: str, arguments: tuple[object, ...]) -> None:
    """Count what is of interest."""
    match event, arguments:
        case "sqlite3.connect", _:
            seen["database"] += 1
        case "subprocess.Popen", _:
            seen["nix"] += 1
        case "os.listdir" | "os.scandir", (int(fd),):
            seen["store"] += os.readlink(f"/proc/self/fd/{fd}") == sys.argv[1]
        case "os.listdir", ("/proc" | b"/proc",):
            seen["processes"] += 1
        case "os.listdir", (str(path),) if path.endswith("/temproots"):
            seen["temp roots"] += 1
        case "open", ("/proc/locks", *_):
            seen["locks"] += 1


sys.addaudithook(count)
code = main(sys.argv[2:])
print(json.dumps(seen), file=sys.stderr)  # noqa: T201 - for who runs it
sys.exit(code)
