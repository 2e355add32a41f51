# SPDX-License-Identifier: MIT
"""How long a sweep takes, beside its floor and beside `nix-store --gc --print-dead`.

    python benchmarks/sweep.py [ENTRIES]

Makes a throwaway store with that many valid paths (200,000) and a little debris, and prints the
best of five runs of the whole process, warm. The floor is one directory listing and one read of
the database in a fresh Python; the rival runs once, on the same store, where Nix is installed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time

from storewarden.throwaway import ThrowawayStore

RUNS = 5
FLOOR = """
import os, sqlite3, sys
store, database = sys.argv[1:]
names = os.listdir(store)
rows = sqlite3.connect(f"file:{database}?mode=ro", uri=True).execute("SELECT path FROM ValidPaths")
print(len(names), len(rows.fetchall()))
"""


def main() -> None:
    """Print the three times and their ratios."""
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory(prefix="storewarden-bench-") as directory:
        place = ThrowawayStore.create(directory)
        fill(place, entries)
        floor = best([sys.executable, "-c", FLOOR, place.store_dir.path, database(place)], {})
        sweep = best(scan_command(place), nix_environment(place, directory))
        print(f"{entries} entries, whole process, warm, best of {RUNS}")
        print(f"floor (list, read database)     {floor:7.3f} s")
        print(f"storewarden scan --dry-run      {sweep:7.3f} s   {sweep / floor:5.1f} x the floor")
        rival(place, directory, sweep)
        place.close()


def fill(place: ThrowawayStore, entries: int, stranded: int = 3) -> None:
    """That many valid paths, of which a third are derivations, and some stranded outputs."""
    paths = [
        place.invent(f"package-{n}-1.0" + (".drv" if n % 3 == 0 else "")) for n in range(entries)
    ]
    for path in paths:
        os.close(os.open(place.path(path.base_name), os.O_CREAT | os.O_WRONLY, 0o444))
    place.register(*paths)
    for n in range(0, 3 * stranded, 3):
        place.strand(paths[n])


def database(place: ThrowawayStore) -> str:
    """Where the store's database is."""
    return f"{place.state_dir}/db/db.sqlite"


def scan_command(place: ThrowawayStore) -> list[str]:
    """The sweep as a user runs it."""
    command = [sys.executable, "-m", "storewarden", "scan", "--dry-run", "--json"]
    places = ["--store-dir", place.store_dir.path, "--state-dir", place.state_dir]
    nix = shutil.which("nix")
    return [*command, *places, *(["--nix", nix] if nix else [])]


def nix_environment(place: ThrowawayStore, directory: str) -> dict[str, str]:
    """What makes Nix take the throwaway store for its own."""
    os.makedirs(f"{directory}/conf", exist_ok=True)
    with open(f"{directory}/conf/nix.conf", "w", encoding="ascii") as file:
        file.write("build-users-group =\nexperimental-features = nix-command\n")
    return {
        "NIX_STORE_DIR": place.store_dir.path,
        "NIX_STATE_DIR": place.state_dir,
        "NIX_LOG_DIR": f"{directory}/log",
        "NIX_CONF_DIR": f"{directory}/conf",
    }


def best(command: list[str], environment: dict[str, str]) -> float:
    """Seconds of the fastest of some runs."""
    return min(timed(command, environment) for _ in range(RUNS))


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, check=False)
    seconds = time.perf_counter() - start
    # 3: no Nix here to ask about the candidates; the sweep itself is the same.
    assert done.returncode in {0, 3}, done.stderr.decode()
    return seconds


def rival(place: ThrowawayStore, directory: str, sweep: float) -> None:
    """Nix's own way to list what is not wanted, once."""
    if (nix_store := shutil.which("nix-store")) is None:
        print("nix-store --gc --print-dead     not installed here")
        return
    command = [nix_store, "--gc", "--print-dead"]
    seconds = timed(command, nix_environment(place, directory))
    print(f"nix-store --gc --print-dead     {seconds:7.3f} s   {seconds / sweep:5.1f} x the sweep")


if __name__ == "__main__":
    main()
