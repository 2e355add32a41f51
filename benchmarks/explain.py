# SPDX-License-Identifier: MIT
"""How long `explain --log` takes, and how much memory, beside `grep -c` and `wc -l` of the same.

    python benchmarks/explain.py [MEGABYTES ...]

Makes logs of 1, 10 and 100 MB: one of an ordinary build, and one in which every line has to be
looked at, since it may be a failure. Medians of three rounds, in each of which every command runs
once: a busy machine is busy for all of them.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from statistics import median

ROUNDS = 3
SIZES = (1, 10, 100)
_HASH = "0a1b2c3d4f5g6h7i8j9k0l1m2n3p4q5r"
ORDINARY = (
    "hello> gcc -c -O2 -I/nix/store/{hash}-glibc-2.40/include src/file{n}.c -o file{n}.o\n",
    "copying path '/nix/store/{hash}-package-{n}' from 'https://cache.nixos.org'...\n",
    "  /nix/store/{hash}-package-{n}.drv\n",
)
SUSPICIOUS = (
    "hello> ok {n} - write: No space left on device\n",
    "hello> /nix/store/{hash}-thing/{n}: Permission denied\n",
    "error: path '/nix/store/{hash}-thing-{n}' is not valid\n",
)


def main() -> None:
    """Print times, those of the processor, ratios to the first rival, and the most memory."""
    sizes = tuple(map(int, sys.argv[1:])) or SIZES
    print(f"whole process, warm, median of {ROUNDS} rounds")
    with tempfile.TemporaryDirectory(prefix="storewarden-bench-") as directory:
        for name, lines in (("ordinary", ORDINARY), ("suspicious", SUSPICIOUS)):
            for size in sizes:
                log = f"{directory}/{name}-{size}.log"
                with open(log, "w", encoding="ascii") as file:
                    file.writelines(_lines(lines, size * 1_000_000))
                _print(f"{size} MB, {name}", log)
                os.unlink(log)


def _lines(lines: tuple[str, ...], size: int) -> Iterator[str]:
    written = number = 0
    while written < size:
        line = lines[number % len(lines)].format(hash=_HASH, n=number)
        written, number = written + len(line), number + 1
        yield line


def _print(title: str, log: str) -> None:
    commands = {
        "grep -c -i permission": ["grep", "-c", "-i", "permission", log],
        "wc -l": ["wc", "-l", log],
        "bare Python": [sys.executable, "-I", "-c", "pass"],
        "storewarden explain --log": [sys.executable, "-m", "storewarden", "explain", "--log", log],
    }
    rounds = [
        {name: _run(command) for name, command in commands.items()} for _ in range(ROUNDS + 1)
    ][1:]
    print(title)
    for name in commands:
        seconds = median(measured[name][0] for measured in rounds)
        ratio = median(measured[name][0] / next(iter(measured.values()))[0] for measured in rounds)
        worked = median(measured[name][1] for measured in rounds)
        memory = max(measured[name][2] for measured in rounds) / 1024
        print(
            f"    {name:28}{seconds:8.3f} s{worked:8.3f} s CPU{ratio:8.1f} x grep{memory:7.1f} MiB"
        )


def _run(command: list[str]) -> tuple[float, float, int]:
    """Seconds, those of the processor, and the most memory in KiB, of one run."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode in {0, 1}, command
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, _kib(used)


def _kib(used: resource.struct_rusage) -> int:
    return used.ru_maxrss if sys.platform != "darwin" else used.ru_maxrss // 1024


if __name__ == "__main__":
    main()
