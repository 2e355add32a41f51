# SPDX-License-Identifier: MIT
"""How long a command takes to start, beside a Python that does nothing.

    python benchmarks/start.py

Each is run in turn with `python -I -c pass`, seven times; what is printed are the medians of its
time and of the ratio of each pair, so that a busy machine weighs on both.
"""

import statistics
import sys
import tempfile

from sweep import nix_environment, scan_command, timed

from storewarden.throwaway import ThrowawayStore

RUNS = 7
BARE = [sys.executable, "-I", "-c", "pass"]


def main() -> None:
    """Print a line for each command."""
    with tempfile.TemporaryDirectory(prefix="storewarden-bench-") as directory:
        place = ThrowawayStore.create(directory)
        place.add_valid("hello")  # a store without any valid path is refused
        program = [sys.executable, "-m", "storewarden"]
        environment = nix_environment(place, directory)
        print(f"one start, beside a bare Python, medians of {RUNS} pairs")
        for name, command in (
            ("--version", [*program, "--version"]),
            ("--help", [*program, "--help"]),
            ("scan --dry-run, empty store", scan_command(place)),
        ):
            pairs = [(timed(BARE, {}), timed(command, environment)) for _ in range(RUNS)]
            seconds = statistics.median(ours for _, ours in pairs)
            ratio = statistics.median(ours / bare for bare, ours in pairs)
            print(f"{name:<28} {seconds:7.3f} s   {ratio:5.1f} x a bare Python")


if __name__ == "__main__":
    main()
