# SPDX-License-Identifier: MIT
"""How long taking and purging a tree takes, beside `rm -rf` of the same tree.

    python benchmarks/purge.py

Best of five each. Taking is what happens under Nix's locks; it must not grow with the tree.
"""

import os
import subprocess
import tempfile
import time

from storewarden.helper.purge import Purged, new_private, purge, remove_from_store

RUNS = 5
TREES = (("wide", 100, 500), ("nested", 5_000, 10), ("empty directories", 20_000, 0))


def main() -> None:
    """Print a line for each shape of tree."""
    with tempfile.TemporaryDirectory(prefix="storewarden-bench-", dir="/var/tmp") as directory:
        for name, directories, files in TREES:
            rival = min(by_rm(directory, directories, files) for _ in range(RUNS))
            ours = [by_purge(directory, directories, files) for _ in range(RUNS)]
            take, whole = min(t for t, _ in ours), min(w for _, w in ours)
            print(
                f"{name}: {directories * files + directories:6} things,"
                f" take {take * 1000:.2f} ms, purge {whole:.3f} s,"
                f" rm -rf {rival:.3f} s, ratio {whole / rival:.2f}"
            )


def make(top: str, directories: int, files: int) -> None:
    """A tree of that many directories, fifty to a parent, with so many files in each."""
    for number in range(directories):
        place = f"{top}/{number // 50}/{number}"
        os.makedirs(place)
        for name in range(files):
            os.close(os.open(f"{place}/{name}", os.O_CREAT | os.O_WRONLY, 0o644))


def by_rm(directory: str, directories: int, files: int) -> float:
    """Seconds that rm takes."""
    make(f"{directory}/tree", directories, files)
    start = time.perf_counter()
    subprocess.run(["/bin/rm", "-rf", f"{directory}/tree"], check=True)
    return time.perf_counter() - start


def by_purge(directory: str, directories: int, files: int) -> tuple[float, float]:
    """Seconds until it is out of the store, and until it is gone."""
    make(f"{directory}/tree", directories, files)
    store_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        start = time.perf_counter()
        with new_private(store_fd) as private:
            remove_from_store(store_fd, "tree", private)
            taken = time.perf_counter() - start
            assert not purge(private, Purged()).failures
        return taken, time.perf_counter() - start
    finally:
        os.close(store_fd)


if __name__ == "__main__":
    main()
