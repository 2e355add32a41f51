# SPDX-License-Identifier: MIT
"""Cuts every test off from the machine's own Nix and signals, and gives a throwaway store."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import interpreter  # noqa: F401 - first of all
from command import Desk, open_desk
from storewarden.store.entries import open_directory
from storewarden.throwaway import ThrowawayStore
from sweeps import own_place

for name in [name for name in os.environ if name.startswith("NIX_")]:
    del os.environ[name]
os.environ["PAGER"] = "cat"  # nobody presses a key

# `nohup` and a shell's `&` have them ignored, and whatever is started here would inherit that, in
# Nix's builders, too: no test of a signal could tell anything then.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        to = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, to)

# How long an example takes says more of the machine and its load than of what is tested.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give each run a directory that no other run closes to other users, as pytest's own does."""
    if not hasattr(config, "workerinput") and config.option.basetemp is None:
        # In macOS' own place for such things no test's socket could be bound: a name has 103 bytes.
        place = "/tmp" if sys.platform == "darwin" else None  # noqa: S108 - one that is made anew
        config.option.basetemp = tempfile.mkdtemp(prefix="sw-tests-", dir=place)

        def remove() -> None:
            # Not shutil.rmtree: it gives up at trees as deep as those that the tests make.
            subprocess.run(["rm", "-rf", config.option.basetemp], check=False)

        config.add_cleanup(remove)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[ThrowawayStore]:
    """An empty throwaway store with some valid paths, so that its database is believed."""
    throwaway = own_place(str(tmp_path))
    for number in range(3):
        throwaway.add_valid(f"valid-{number}")
    yield throwaway
    throwaway.close()


@pytest.fixture
def desk(place: ThrowawayStore, tmp_path: Path) -> Desk:
    """That store, and a stand-in for Nix that knows nothing as valid."""
    return open_desk(place, tmp_path)


@pytest.fixture
def store_fd(place: ThrowawayStore) -> Iterator[int]:
    """A descriptor of its store directory."""
    fd = open_directory(place.store_dir.path)
    yield fd
    os.close(fd)
