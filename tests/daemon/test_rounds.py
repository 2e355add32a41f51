# SPDX-License-Identifier: MIT
"""One round of the service's work."""

from pathlib import Path

import structlog

from disks import debugfs, needs_a_disk, of_a_changed_disk
from storewarden.config import Config
from storewarden.daemon.rounds import sweep_all
from storewarden.daemon.work import Work
from storewarden.throwaway import ThrowawayStore


def strand(place: ThrowawayStore) -> str:
    return place.strand(place.add_derivation("ahead")).base_name


def set_clock_back(image: Path, ahead: str) -> None:
    """As if it had changed in 2036."""
    debugfs(image, f"set_inode_field /nix/store/{ahead} ctime @0x7c25b080")


def sweep_twice(place: ThrowawayStore, ahead: str) -> list[tuple[str, ...]]:
    """Why it, and one that was stranded just now, are told as stuck."""
    young = place.strand(place.add_derivation("young")).base_name
    config, log = Config(min_age=3600.0), structlog.get_logger()
    store = place.as_store(config.min_age)
    work = Work(config, store, lambda _: iter(()), log, lambda: None, lambda: False)
    for _ in range(2):
        sweep_all(work)
    return [work.suspects[name].reasons for name in (ahead, young)]


@needs_a_disk
def test_what_changed_before_the_clock_was_set_back_is_told_as_stuck(tmp_path: Path) -> None:
    [[reason], plain] = of_a_changed_disk(tmp_path, strand, set_clock_back, sweep_twice)
    assert "by the clock in 2036" in reason
    assert plain == []
