# SPDX-License-Identifier: MIT
"""Nix at work on something big, which lies in the store for a while before it is registered."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGKILL

import pytest

from lab import jobs
from real import namespace as ns
from real.rig import Rig, unregistered, valid_paths
from real.warden import Report, finding, scan, statuses

REGISTERING = int(os.environ.get("STOREWARDEN_LAB_REGISTERING", "1"))
"""How often each way to interrupt a registration is tried."""
MEGABYTES = 400
BIG = f"head -c {MEGABYTES}M /dev/zero"


@dataclass(frozen=True, slots=True)
class Watched:
    """What was seen of the store while a command was at work."""

    sweeps: int
    reasons: dict[str, set[str]]
    """Why each entry was kept that was found."""


def test_a_big_output_is_untouched_between_the_end_of_its_builder_and_its_registration(
    rig: Rig,
) -> None:
    script = f"{jobs.WITNESS}{BIG} > $out/big\n{jobs.FINISH}"
    child = jobs.start(rig, ["big"], script, "big")
    [builder] = jobs.wait_for_builders(rig, ["big"], "big", child)
    ns.wait_until(lambda: "big ends" in jobs.log_of(rig, "big"), "the end of the builder", 120)
    watched = sweep_while(rig, child)
    assert watched.sweeps >= 1, "it was registered before anybody looked"
    assert child.process.wait() == 0, jobs.log_of(rig, "big")
    made = jobs.log_of(rig, "big").splitlines()[-1]
    assert_big(rig, f"{made}/big")
    assert unregistered(rig) <= {builder.out}
    assert_said_why(watched)


INTERRUPTS = {"client": SIGINT, "worker": SIGKILL}
MOMENTS = {"its output is root's": "", "it is being copied": ".tmp"}


@pytest.mark.timeout(120 + REGISTERING * 60)
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
@pytest.mark.parametrize("target", INTERRUPTS)
def test_what_a_build_leaves_that_is_interrupted_while_it_is_registered_is_removed(
    rig: Rig, target: str, moment: str
) -> None:
    """Nix makes an output root's before it registers it, and a copy beside it, `….tmp`.

    Each by itself wedges the derivation: the one for all build users, the other as it is in the
    place of the next copy.
    """
    for number in range(REGISTERING):
        names = [f"big{number}"]
        small = f"{rig.base}/signals/small{number}"
        script = f"{jobs.WITNESS}[ -e {small} ] || {BIG} > $out/big\n{jobs.FINISH}"
        interrupted = interrupt_registering(rig, names, script, target, moment)
        left = unregistered(rig)
        # A moment later than it was seen: the copy may have taken the output's place.
        assert left & {interrupted, f"{interrupted}.tmp"}, left
        assert len(left - {interrupted, f"{interrupted}.tmp"}) == 1, "its lock, nothing else"

        report = scan(rig, "--yes")
        assert statuses(report) == dict.fromkeys(left, "removed"), report
        Path(small).touch()
        words = jobs.build_words(rig, names, script)
        again = ns.run(rig.namespace, words, user=rig.user)
        assert again.returncode == 0, again.stderr
        assert os.listdir(rig.outside(again.stdout.strip())) == ["result"]
        assert unregistered(rig) == set()


def interrupt_registering(rig: Rig, names: list[str], script: str, target: str, moment: str) -> str:
    """Begin to build that, and interrupt it when there is root's output, or a copy of it."""
    log = names[0]
    child = jobs.start(rig, names, script, log)
    [builder] = jobs.wait_for_builders(rig, names, log, child)
    [worker] = [one.parent for one in ns.processes(rig.namespace) if one.pid == builder.pid]
    place = rig.outside(builder.out + moment)
    ns.wait_until(
        lambda: os.path.lexists(place) and os.lstat(place).st_uid == 0, "it to be root's", 120
    )
    ns.kill(rig.namespace, INTERRUPTS[target], child.pid if target == "client" else worker)
    assert child.process.wait(20) != 0, jobs.log_of(rig, log)
    ns.wait_until(lambda: worker not in pids(rig), "the end of the worker")
    return builder.out


def test_a_copy_by_itself_that_a_power_cut_left_is_removed(rig: Rig) -> None:
    """Nix deletes the output, and then renames the copy to its place."""
    script = f"{jobs.WITNESS}sleep 600\n{jobs.FINISH}"
    child = jobs.start(rig, ["cut"], script, "cut")
    [builder] = jobs.wait_for_builders(rig, ["cut"], "cut", child)
    ns.kill(rig.namespace, SIGINT, child.pid)
    assert child.process.wait(20) != 0
    os.rename(rig.outside(builder.out), rig.outside(f"{builder.out}.tmp"))
    os.chown(rig.outside(f"{builder.out}.tmp"), 0, 0)
    left = unregistered(rig)
    assert len(left) == 2, left
    found = finding(scan(rig, "--dry-run"), f"{builder.out}.tmp")
    assert found["deriver"] is not None
    assert statuses(scan(rig, "--yes")) == dict.fromkeys(left, "removed")


def pids(rig: Rig) -> set[int]:
    return {process.pid for process in ns.processes(rig.namespace)}


def test_a_big_file_that_is_added_to_the_store_is_untouched_meanwhile(rig: Rig) -> None:
    source = big_file(rig)
    child = start(rig, ["nix-store", "--add", source])
    watched = sweep_while(rig, child)
    assert watched.sweeps >= 1
    assert child.process.wait() == 0, ns.read(f"{rig.base}/logs/transfer")
    assert_big(rig, last_line(rig))
    assert_said_why(watched)


def test_a_path_that_is_copied_from_a_cache_is_untouched_meanwhile(rig: Rig) -> None:
    path, cache = cached(rig)
    copy = ["nix", "copy", "--no-check-sigs", "--from", cache, path]
    watched = transfer(rig, path, copy)
    assert path in valid_paths(rig)
    assert_big(rig, path)
    assert_said_why(watched)


def test_a_path_that_is_substituted_is_untouched_meanwhile(rig: Rig) -> None:
    path, cache = cached(rig)
    options = ["--option", "substituters", cache, "--option", "require-sigs", "false"]
    watched = transfer(rig, path, ["nix-store", "--realise", path, *options])
    assert path in valid_paths(rig)
    assert_big(rig, path)
    assert_said_why(watched)


def sweep_while(rig: Rig, child: ns.Child) -> Watched:
    """Sweep and remove what can go until the command has ended; nothing of its may."""
    sweeps, reasons = 0, dict[str, set[str]]()
    while child.process.poll() is None:
        report = scan(rig, "--yes")
        if child.process.poll() is None:
            sweeps += 1
            assert not removed(report), report
            for one in report["findings"]:
                reasons.setdefault(one["path"], set()).update(one["reasons"])
    return Watched(sweeps, reasons)


def removed(report: Report) -> set[str]:
    return {path for path, status in statuses(report).items() if status != "kept"}


def transfer(rig: Rig, path: str, command: Sequence[str]) -> Watched:
    """What was seen while that brought the path; again, where it came before anybody looked."""
    for _ in range(5):
        child = start(rig, command)
        watched = sweep_while(rig, child)
        assert child.process.wait() == 0, ns.read(f"{rig.base}/logs/transfer")
        if watched.reasons:
            return watched
        assert ns.run(rig.namespace, ["nix-store", "--delete", path]).returncode == 0
    pytest.fail("it came five times before anybody looked")


def start(rig: Rig, command: Sequence[str]) -> ns.Child:
    """As a user whom the daemon trusts with a cache that nobody has signed."""
    return ns.start(rig.namespace, command, log=f"{rig.base}/logs/transfer", user="trusty")


def cached(rig: Rig) -> tuple[str, str]:
    """A big path that lies in a cache of files, and not in the store."""
    added = ns.run(rig.namespace, ["nix-store", "--add", big_file(rig)])
    assert added.returncode == 0, added.stderr
    path = added.stdout.strip()
    cache = f"file://{rig.base}/scratch/cache?compression=none"
    for words in (["nix", "copy", "--to", cache, path], ["nix-store", "--delete", path]):
        done = ns.run(rig.namespace, words, seconds=120)
        assert done.returncode == 0, done.stderr
    assert not os.path.lexists(rig.outside(path))
    return path, cache


def big_file(rig: Rig) -> str:
    """A big file; and a small one in the store, because an empty database is not believed."""
    assert ns.run(rig.namespace, ["nix-store", "--add", "/etc/passwd"]).returncode == 0
    place = f"{rig.base}/scratch/big"
    with open(place, "wb") as file:
        file.writelines(bytes(1 << 20) for _ in range(MEGABYTES))
    return place


def last_line(rig: Rig) -> str:
    return ns.read(f"{rig.base}/logs/transfer").splitlines()[-1]


def assert_big(rig: Rig, path: str) -> None:
    assert os.path.getsize(rig.outside(path)) == MEGABYTES << 20


def assert_said_why(watched: Watched) -> None:
    assert watched.reasons, "it was never seen unregistered"
    assert all(watched.reasons.values())
