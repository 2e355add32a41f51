# SPDX-License-Identifier: MIT
"""Macs to be tested on: made once for a whole run, copied and booted for each test."""

import fcntl
import os
from collections.abc import Callable, Iterator

import pytest

from mac import root
from mac.installed import set_up
from mac.machine import Mac, opened
from programs import need


def _once(base: str, make: Callable[[str], object]) -> root.Root:
    """What that makes in that directory, made by whichever of the run's processes is first."""
    with open(f"{base}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(f"{base}.made"):
            make(base)
            with open(f"{base}.made", "x", encoding="ascii"):
                pass
    return root.Root(base)


@pytest.fixture(scope="session")
def shared_directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One directory of the whole run, whatever the number of processes it is done by."""
    need("the stand-in for a Mac", root.missing())
    base = tmp_path_factory.getbasetemp()
    return str(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture(scope="session")
def new_disk(shared_directory: str) -> root.Root:
    """The disk of a Mac with Nix and a checkout of storewarden, which has never run."""
    return _once(f"{shared_directory}/mac-new", root.make)


@pytest.fixture(scope="session")
def set_up_disk(shared_directory: str, new_disk: root.Root) -> root.Root:
    """The disk of one on which `sudo storewarden setup` has been run."""

    def make(base: str) -> None:
        with opened(new_disk, root.UID) as mac:
            set_up(mac)
            mac.switch_off()
            root.copied(mac.root, base)

    return _once(f"{shared_directory}/mac-set-up", make)


@pytest.fixture
def mac(new_disk: root.Root) -> Iterator[Mac]:
    """A new Mac; its person is logged in at the screen."""
    with opened(new_disk, root.UID) as machine:
        yield machine


@pytest.fixture
def installed(set_up_disk: root.Root) -> Iterator[Mac]:
    """A Mac that has just been switched on, with the service set up earlier."""
    with opened(set_up_disk, root.UID) as machine:
        yield machine
