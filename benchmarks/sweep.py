# SPDX-License-Identifier: MIT
"""How long a sweep takes, beside its floor, a bare Python, `find -user` and Nix's own way.

    python benchmarks/sweep.py [ENTRIES]

Makes a throwaway store with that many valid paths (200,000) and a little debris, and prints medians
of seven rounds, warm, in each of which every command runs once: a busy machine is busy for all of
them. The floor is one directory listing, one read of the database and the set difference in a fresh
Python. Nix's own way (`nix-store --gc --print-dead`) runs once, on the same store.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from statistics import median

from storewarden.throwaway import ThrowawayStore

ROUNDS = 7
PYTHON = (sys.executable, "-I", "-c")
FLOOR = """
import os, sqlite3, sys
store, database = sys.argv[1:]
names = set(os.listdir(store))
rows = sqlite3.connect(f"file:{database}?mode=ro", uri=True).execute("SELECT path FROM ValidPaths")
print(len(names - {path[len(store) + 1:] for (path,) in rows}))
"""


def main() -> None:
    """Print the times and the ratios to the floor, in the median of all rounds."""
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory(prefix="storewarden-bench-") as directory:
        place = ThrowawayStore.create(directory)
        fill(place, entries)
        store, environment = place.store_dir.path, nix_environment(place, directory)
        commands = {
            "floor (list, database, difference)": [*PYTHON, FLOOR, store, database(place)],
            "bare Python": [*PYTHON, "pass"],
            "find -user": ["find", store, "-maxdepth", "1", "-user", str(place.builder)],
            "storewarden scan --dry-run": scan_command(place),
        }
        rounds = [
            {name: timed(command, environment) for name, command in commands.items()}
            for _ in range(ROUNDS + 1)
        ][1:]
        print(f"{entries} entries, whole process, warm, median of {ROUNDS} rounds")
        for name in commands:
            seconds = median(times[name] for times in rounds)
            ratios = [times[name] / next(iter(times.values())) for times in rounds]
            print(row(name, seconds), f"{median(ratios):6.2f} x the floor")
        print(rival(environment))
        place.close()


def row(name: str, seconds: float) -> str:
    """A line of the table."""
    return f"{name:36}{seconds:8.3f} s"


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


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Seconds of one run, with byte code as any installed program has it."""
    whole = os.environ | environment | {"PYTHONDONTWRITEBYTECODE": ""}
    start = time.perf_counter()
    done = subprocess.run(command, env=whole, capture_output=True, check=False)
    seconds = time.perf_counter() - start
    # 3: no Nix here to ask about what is found; the sweep itself is the same.
    assert done.returncode in {0, 3}, done.stderr.decode()
    return seconds


def rival(environment: dict[str, str]) -> str:
    """Nix's own way to list what nothing needs, once; it has to look at every path."""
    name = "nix-store --gc --print-dead"
    if (nix_store := shutil.which("nix-store")) is None:
        return f"{name:36}not installed here"
    return f"{row(name, timed([nix_store, *name.split()[1:]], environment))}   once"


if __name__ == "__main__":
    main()
