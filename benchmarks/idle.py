# SPDX-License-Identifier: MIT
"""What the service costs while nothing happens, beside a bare Python that watches the same way.

    sudo python benchmarks/idle.py [SECONDS [ENTRIES]]

Makes a throwaway store with that many valid paths (200,000), starts helper and watcher (as
`nobody`) on it, waits that long (600 s) after the first sweep, and prints CPU time used meanwhile
and memory at the end.
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time

import psutil
from sweep import database, fill

from storewarden.throwaway import ThrowawayStore

BARE = """
import sys, time
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer
observer = Observer()
observer.schedule(FileSystemEventHandler(), sys.argv[1], recursive=False)
observer.start()
time.sleep(1e6)
"""


def main() -> None:
    """Print CPU time and memory of each, and the ratio of watcher and bare Python."""
    if os.geteuid() != 0:
        print("idle: only root can start the helper; left out")
        return
    seconds, entries = (*map(int, sys.argv[1:]), *(600, 200_000)[len(sys.argv) - 1 :])
    with tempfile.TemporaryDirectory(prefix="storewarden-bench-") as directory:
        os.chmod(directory, 0o755)  # noqa: S103 - nobody must get in
        place = ThrowawayStore.create(directory)
        fill(place, entries, stranded=0)
        started = start(place, directory)
        # As while a daemon runs: without it an ordinary user cannot read a database in WAL mode.
        daemon = sqlite3.connect(database(place))
        daemon.execute("SELECT count(*) FROM ValidPaths").fetchone()
        try:
            time.sleep(20)  # the first sweep, and what it finds
            before = {name: cpu(process) for name, process in started.items()}
            time.sleep(seconds)
            print(f"{entries} entries, {seconds} s in which nothing happens")
            for name, process in started.items():
                used = cpu(process) - before[name]
                memory = psutil.Process(process.pid).memory_info().rss / 2**20
                share = 100 * used / seconds
                print(f"{name:8} {used:7.4f} s of CPU ({share:.5f} %), {memory:6.1f} MiB")
        finally:
            for process in started.values():
                process.terminate()
                process.wait()
            daemon.close()


def start(place: ThrowawayStore, directory: str) -> dict[str, subprocess.Popen[bytes]]:
    """Helper, watcher and the bare Python, each by its name."""
    socket, config = f"{directory}/run/helper.sock", f"{directory}/config.toml"
    runtime = f"{directory}/watch"
    os.mkdir(runtime)
    os.chown(runtime, 65534, 65534)
    with open(config, "w", encoding="ascii") as file:
        file.write(
            f'store-dir = "{place.store_dir.path}"\nstate-dir = "{place.state_dir}"\n'
            f'runtime-dir = "{runtime}"\nsocket = "{socket}"\nnix = "/bin/false"\n'
        )
    places = ["--store-dir", place.store_dir.path, "--state-dir", place.state_dir]
    words = ["--allow-uid", "65534", "--socket", socket, "--audit-log", f"{directory}/audit.jsonl"]
    helper = [sys.executable, "-I", "-m", "storewarden.helper", *words, *places]
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    watcher = [*nobody, sys.executable, "-m", "storewarden", "watch", "--config", config]
    started = {"helper": subprocess.Popen([*helper, "--nix", "/bin/false"])}
    while not os.path.exists(socket):
        time.sleep(0.05)
    started["watcher"] = subprocess.Popen(watcher)
    started["bare"] = subprocess.Popen([sys.executable, "-c", BARE, place.store_dir.path])
    return started


def cpu(process: subprocess.Popen[bytes]) -> float:
    """Seconds of CPU that its threads have used; not rounded to clock ticks."""
    used = 0
    for thread in os.listdir(f"/proc/{process.pid}/task"):
        with open(f"/proc/{process.pid}/task/{thread}/schedstat", encoding="ascii") as file:
            used += int(file.read().split()[0])
    return used / 1e9


if __name__ == "__main__":
    main()
