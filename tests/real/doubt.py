# SPDX-License-Identifier: MIT
"""What is built on the remains of an interrupted build, and what the service says of it."""

import os
import time
from signal import SIGKILL
from subprocess import CompletedProcess

from real import namespace as ns
from real.builds import Build, Interrupt, let_finish, retry, start_build, stranded
from real.recipes import Recipe, arguments
from real.rig import Rig
from real.watching import Service, service

REPORT = 'mode = "report"'
SENTENCE = "built on the remains of an interrupted build; it may hold stale files"


def doubtful(watcher: Service) -> list[str]:
    return [f"/nix/store/{one['name']}" for one in watcher.status["doubtful"]]


def build_on_remains(rig: Rig, build: Build) -> str:
    """The valid path that comes of a retry by the same build user, stale files and all."""
    done = retry(rig, build.recipe)
    assert done.returncode == 0, done.stderr
    path = done.stdout.strip()
    assert len(os.listdir(rig.outside(path))) == 2, "Nix has cleared away what lay there"
    return path


def assert_told_until_it_is_replaced(rig: Rig, how: Interrupt) -> None:
    with service(rig, REPORT, user="nobody") as watcher:
        build = stranded(rig, "job", how)
        path = build_on_remains(rig, build)
        ns.wait_until(lambda: doubtful(watcher) == [path], f"the doubt:\n{watcher.said}")
        assert f'"event": "{SENTENCE}"' in watcher.said
        shown = tell(rig, "status")
        assert shown.returncode == 5, shown.stdout + shown.stderr
        assert "DOUBTFUL: 1 valid path" in shown.stdout
        explained = tell(rig, "explain", path)
        assert SENTENCE in " ".join(explained.stdout.split()), explained.stdout + explained.stderr
        checking, replacing = commands(explained.stdout)
        told = {line.partition(": ")[2].strip() for line in shown.stdout.splitlines()}
        assert {checking, replacing} <= told
        assert by_hand(rig, checking).returncode == 0
        assert doubtful(watcher) == [path], "what the check made was not the same"
        assert by_hand(rig, replacing).returncode == 0
        ns.wait_until(lambda: doubtful(watcher) == [], f"the end of the doubt:\n{watcher.said}")
    assert '"reasons": "it is gone"' in watcher.said


def commands(explained: str) -> tuple[str, str]:
    """Those that it advises first: to check, and to replace."""
    lines = [line.strip() for line in explained.splitlines()]
    first, second, *_ = [line for line in lines if line.startswith("nix-store --")]
    return first, second


def tell(rig: Rig, *words: str) -> CompletedProcess[str]:
    """What storewarden says of it to an ordinary user."""
    program = [rig.python, "-m", "storewarden", *words, "--config", f"{rig.base}/logs/config.toml"]
    return ns.run(rig.namespace, program, user=rig.user)


def by_hand(rig: Rig, command: str) -> CompletedProcess[str]:
    return ns.run(rig.namespace, ["sh", "-c", command], user=rig.user)


def assert_forgotten_when_it_comes_out_the_same(rig: Rig) -> None:
    with service(rig, REPORT, user="nobody") as watcher:
        # It is the same with and without: what was left is what the builder itself makes first.
        build = start_build(rig, Recipe("job"))
        time.sleep(1)  # so that it is seen at work, on a busy machine too
        ns.kill(rig.namespace, SIGKILL, build.worker, build.builder)
        build.client.process.wait(20)
        [left] = os.listdir(rig.outside(build.outputs["out"]))
        os.unlink(f"{rig.outside(build.outputs['out'])}/{left}")
        done = retry(rig, build.recipe)
        path = done.stdout.strip()
        ns.wait_until(lambda: doubtful(watcher) == [path], f"the doubt:\n{watcher.said}")
        assert by_hand(rig, f"nix-store --realise --check {build.drv}").returncode == 0
        ns.wait_until(lambda: doubtful(watcher) == [], f"the end of the doubt:\n{watcher.said}")
    assert "built again, and the result was the same" in watcher.said


def assert_ordinary_builds_are_never_told_of(rig: Rig, seconds: float) -> int:
    """Two by two, with checks and collections; gives how many."""
    until, number = time.monotonic() + seconds, 0
    with service(rig, REPORT, user="nobody") as watcher:
        while number < 4 or time.monotonic() < until:
            number += 1
            recipe = Recipe(f"job-{number % 2}")
            let_finish(rig, recipe)
            build = ["nix-build", "--no-out-link", *arguments(rig, recipe)]
            for words in (build, [*build, "--check"], ["nix-store", "--gc"]):
                assert ns.run(rig.namespace, words, user=rig.user).returncode == 0
        assert doubtful(watcher) == []
    return number
