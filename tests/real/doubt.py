# SPDX-License-Identifier: MIT
"""What is built on the remains of an interrupted build, and what the service says of it."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from signal import SIGKILL
from subprocess import CompletedProcess
from typing import Any

from json_documents import checked
from real import namespace as ns
from real.builds import Build, Interrupt, let_finish, retry, start_build, stranded
from real.recipes import Recipe, arguments
from real.rig import Rig
from real.watching import service

REPORT = 'mode = "report"'
SENTENCE = "built on the remains of an interrupted build; it may hold stale files"


@dataclass(frozen=True, slots=True)
class Watcher:
    """A service that only reports, and what people hear of it."""

    status: Callable[[], dict[str, Any]]
    said: Callable[[], str]
    """Its log."""
    tell: Callable[..., CompletedProcess[str]]
    """Runs a command of storewarden's as an ordinary user."""

    @property
    def doubtful(self) -> list[str]:
        return [f"/nix/store/{one['name']}" for one in self.status()["doubtful"]]


@contextmanager
def watcher_in(rig: Rig) -> Iterator[Watcher]:
    """One in a rig, as an ordinary user."""
    config = ["--config", f"{rig.base}/logs/config.toml"]

    def tell(*words: str) -> CompletedProcess[str]:
        program = [rig.python, "-m", "storewarden", *words, *config]
        return ns.run(rig.namespace, program, user=rig.user)

    with service(rig, REPORT, user="nobody") as one:
        yield Watcher(lambda: one.status, lambda: one.said, tell)


def build_on_remains(rig: Rig, build: Build) -> str:
    """The valid path that comes of a retry by the same build user, stale files and all."""
    done = retry(rig, build.recipe)
    assert done.returncode == 0, done.stderr
    path = done.stdout.strip()
    assert len(os.listdir(rig.outside(path))) == 2, "Nix has cleared away what lay there"
    return path


def assert_told_until_it_is_replaced(rig: Rig, watcher: Watcher, how: Interrupt) -> None:
    build = stranded(rig, "job", how)
    path = build_on_remains(rig, build)
    ns.wait_until(lambda: watcher.doubtful == [path], f"the doubt:\n{watcher.said()}")
    assert SENTENCE in watcher.said()
    shown = watcher.tell("status")
    assert shown.returncode == 5, shown.stdout + shown.stderr
    assert "DOUBTFUL: 1 valid path" in shown.stdout
    explained = watcher.tell("explain", path)
    assert SENTENCE in " ".join(explained.stdout.split()), explained.stdout + explained.stderr
    [document] = checked(watcher.tell("explain", "--json", path).stdout, "explain")["paths"]
    assert document["doubtfulSince"]
    checking, replacing = commands(explained.stdout)
    told = {line.partition(": ")[2].strip() for line in shown.stdout.splitlines()}
    assert {checking, replacing} <= told
    assert by_hand(rig, checking).returncode == 0
    assert watcher.doubtful == [path], "what the check made was not the same"
    assert by_hand(rig, replacing).returncode == 0
    ns.wait_until(lambda: watcher.doubtful == [], f"the end of the doubt:\n{watcher.said()}")
    assert "it is gone" in watcher.said()


def commands(explained: str) -> tuple[str, str]:
    """Those that it advises first: to check, and to replace."""
    lines = [line.strip() for line in explained.splitlines()]
    first, second, *_ = [line for line in lines if line.startswith("nix-store --")]
    return first, second


def by_hand(rig: Rig, command: str) -> CompletedProcess[str]:
    return ns.run(rig.namespace, ["sh", "-c", command], user=rig.user)


def assert_forgotten_when_it_comes_out_the_same(rig: Rig, watcher: Watcher) -> None:
    # It is the same with and without: what was left is what the builder itself makes first.
    build = start_build(rig, Recipe("job"))
    time.sleep(1)  # so that it is seen at work, on a busy machine too
    ns.kill(rig.namespace, SIGKILL, build.worker, build.builder)
    build.client.process.wait(20)
    [left] = os.listdir(rig.outside(build.outputs["out"]))
    os.unlink(f"{rig.outside(build.outputs['out'])}/{left}")
    done = retry(rig, build.recipe)
    path = done.stdout.strip()
    ns.wait_until(lambda: watcher.doubtful == [path], f"the doubt:\n{watcher.said()}")
    assert by_hand(rig, f"nix-store --realise --check {build.drv}").returncode == 0
    ns.wait_until(lambda: watcher.doubtful == [], f"the end of the doubt:\n{watcher.said()}")
    assert "built again, and the result was the same" in watcher.said()


def assert_ordinary_builds_are_never_told_of(rig: Rig, watcher: Watcher, seconds: float) -> int:
    """Two by two, with checks and collections; gives how many."""
    until, number = time.monotonic() + seconds, 0
    while number < 4 or time.monotonic() < until:
        number += 1
        recipe = Recipe(f"job-{number % 2}")
        let_finish(rig, recipe)
        build = ["nix-build", "--no-out-link", *arguments(rig, recipe)]
        for words in (build, [*build, "--check"], ["nix-store", "--gc"]):
            assert ns.run(rig.namespace, words, user=rig.user).returncode == 0
    assert watcher.doubtful == []
    return number
