# SPDX-License-Identifier: MIT
"""`python -m fuzz.run`: bytes that nobody thought of, for all that reads what others wrote.

Guided by coverage (atheris): from the inputs in the repository, and from what earlier runs found
worth keeping, in build/fuzz. An input that breaks a law is left there and named.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fuzz.targets import CORPUS, TARGETS, Target
from helper.faults import QUICK

KEPT = CORPUS.parents[2] / "build/fuzz"
_SLOW_SECONDS = 30
_MIB = 1024
_MOST_LINES = 20
_TOLD = re.compile(r"^SUMMARY: .*|Test unit written to .*", re.MULTILINE)
_WORD = re.compile(rb"[\w.-]{1,40}|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a target."""

    target: Target
    tried: int
    covered: int
    """Branches that were reached."""
    why: list[str]
    """What it said, where a law was broken, and in which file the input is."""


def main(argv: Sequence[str] | None = None) -> int:
    """Try all targets, each for so long; 1 if a law was broken."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__.partition("\n\n")[2])
    names = [target.name for target in TARGETS]
    parser.add_argument("--only", metavar="TARGET", action="append", choices=names)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(argv)
    targets = [target for target in TARGETS if target.name in (options.only or names)]
    print(f"{len(targets)} targets, {options.seconds} s each; seed {options.seed}", flush=True)
    broken = False
    work = partial(_fuzz, seconds=options.seconds, seed=options.seed)
    with ThreadPoolExecutor(options.processes) as pool:
        for ended in pool.map(work, targets):
            told = f"{ended.tried:>9} tried, {ended.covered:>5} covered"
            print(f"{ended.target.name:14} {told}", *ended.why, sep="\n    ", flush=True)
            broken |= bool(ended.why)
    if broken:
        print(f"once it is mended, an input goes to {os.path.relpath(CORPUS)}, by an honest name")
    return broken


def _fuzz(target: Target, seconds: int, seed: int) -> Ended:
    kept = KEPT / target.name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sw-fuzz-", dir=QUICK) as place:
        words = Path(place, "words")
        words.write_text("".join(f'"{one}"\n' for one in _words(target)), encoding="ascii")
        options = [
            f"-dict={words}",
            f"-max_total_time={seconds}",
            f"-seed={seed & 0xFFFFFFFF or 1}",
            f"-timeout={_SLOW_SECONDS}",
            f"-rss_limit_mb={_MIB}",
            f"-artifact_prefix={KEPT}/{target.name}-",
            "-print_final_stats=1",
            str(kept),
            str(CORPUS / target.corpus),
        ]
        command = [sys.executable, "-m", "fuzz.child", target.name, place, *options]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
    counted = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    covered = re.findall(r"\bcov: (\d+)", done.stderr)
    why = []
    if done.returncode:
        why = [*done.stdout.splitlines()[-_MOST_LINES:], *_TOLD.findall(done.stderr)]
        why = why or done.stderr.splitlines()[-_MOST_LINES:]
    return Ended(target, int(counted[1]) if counted else 0, int((covered or ["0"])[-1]), why)


def _words(target: Target) -> set[str]:
    """What an input is made of, as libFuzzer's dictionaries have it."""
    found = {word for path in target.inputs for word in _WORD.findall(path.read_bytes())}
    return {"".join(f"\\x{byte:02x}" for byte in word) for word in found}


if __name__ == "__main__":
    sys.exit(main())
