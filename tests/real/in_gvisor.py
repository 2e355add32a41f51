# SPDX-License-Identifier: MIT
"""Run under gVisor by test_gvisor: the service beside real builds of a root without a daemon.

Prints one JSON object: what was seen. Nothing of it is to be seen outside that sandbox.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from signal import SIGINT, SIGTERM

BUILDER = "mkdir $out; echo $out >/tmp/$name.started; sleep 60"
JOB = """derivation {{
  name = "{name}"; system = builtins.currentSystem; PATH = "/usr/bin:/bin"; builder = "/bin/sh";
  args = [ "-c" ''{builder}'' ];
  __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";
}}"""
OPTIONS = {
    "sandbox": "false",
    "substituters": "",
    "build-users-group": "nixbld",
    "experimental-features": "nix-command ca-derivations",
}


def main() -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", "/nix"], check=True)
    subprocess.run(["nix-store", "--init"], check=True)
    os.makedirs("/var/log", exist_ok=True)
    with open("/tmp/said", "wb") as said:  # noqa: S108 - this /tmp is nobody else's
        command = [sys.executable, "-m", "storewarden", "watch"]
        service = subprocess.Popen(command, stderr=said)
        wait_until(lambda: '"watching"' in read("/tmp/said"))  # noqa: S108
        # One after the other: two that make the database at once wait for each other for ever.
        job = start("job")
        stranded = written("job")
        live = start("live")
        living = written("live")
        left = interrupted(job, stranded)
        seconds = gone(stranded)
        kept = os.path.lexists(living) and live.poll() is None
        left = left and interrupted(live, living)
        gone(living)
        status = json.loads(read("/run/storewarden/watch/status.json"))
        service.send_signal(SIGTERM)
        ended = service.wait(20)
    found = {
        "left": left,
        "seconds": seconds,
        "kept": kept,
        "ended": ended,
        "wakes": status["wakes"],
        "problems": status["problems"],
        "lying": sorted(name.partition("-")[2] for name in os.listdir("/nix/store")),
    }
    print(json.dumps(found))  # noqa: T201 - for the test outside


def start(name: str) -> "subprocess.Popen[bytes]":
    """A build as root with build users; the name is the derivation's."""
    with open(f"/tmp/{name}.nix", "w", encoding="ascii") as file:  # noqa: S108
        file.write(JOB.format(name=name, builder=BUILDER))
    options = [word for key, value in OPTIONS.items() for word in ("--option", key, value)]
    return subprocess.Popen(["nix-build", "--no-out-link", *options, file.name])


def written(name: str) -> str:
    """The path that the builder has begun to write."""
    place = f"/tmp/{name}.started"  # noqa: S108
    wait_until(lambda: os.path.exists(place) and re.search("\n", read(place)) is not None)
    return read(place).strip()


def interrupted(build: "subprocess.Popen[bytes]", path: str) -> bool:
    """Whether it left that path when it was interrupted, and ended."""
    build.send_signal(SIGINT)
    build.wait(20)
    return os.path.lexists(path)


def gone(path: str) -> float:
    """Seconds until it and its lock file have been removed."""
    began = time.monotonic()
    lock = f"{path.partition('-')[2]}.drv.out.lock"
    wait_until(
        lambda: (
            not os.path.lexists(path)
            and not any(name.endswith(f"-{lock}") for name in os.listdir("/nix/store"))
        )
    )
    return time.monotonic() - began


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not happened():
        if time.monotonic() > end:
            sys.exit(f"waited too long; the service said:\n{read('/tmp/said')}")  # noqa: S108
        time.sleep(0.1)


if __name__ == "__main__":
    main()
