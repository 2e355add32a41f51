# SPDX-License-Identifier: MIT
"""`storewarden run`: builds of a real Nix that fail on debris, and some that fail by themselves."""

import os
import re
from signal import SIGINT, SIGTERM, Signals

import pytest

from real import namespace as ns
from real.builds import Interrupt, builder_lives, let_finish, start_build, strand, stranded
from real.recipes import Recipe
from real.rig import Rig, unregistered
from real.running import (
    AGAIN,
    WEDGED,
    as_user,
    assert_a_wedged_build_is_healed,
    assert_healed,
    derivation,
    nix_build,
    run_wedged,
    words,
)
from real.warden import helper, records, socket_path, typed
from storewarden.readable import REMOVE


def test_a_build_that_fails_on_debris_is_healed_and_run_once_more(rig: Rig) -> None:
    assert_a_wedged_build_is_healed(rig)
    [intent, _] = records(rig)
    assert "for a build that failed on it" in str(intent["requester"]["via"])


def test_an_ordinary_user_is_healed_by_the_helper(rig: Rig) -> None:
    build = stranded(rig, "wedged")
    let_finish(rig, build.recipe)
    with helper(rig, rig.user):
        asked = words(rig, nix_build(rig, build.recipe), "--socket", socket_path(rig))
        assert_healed(rig, build, run_wedged(rig, build.uid, asked, rig.user))


def test_who_may_not_remove_it_is_told_why_it_fails_and_what_to_do(rig: Rig) -> None:
    build = stranded(rig, "wedged")
    let_finish(rig, build.recipe)
    done = run_wedged(rig, build.uid, words(rig, nix_build(rig, build.recipe)), rig.user)
    assert (done.status, done.told.count(AGAIN)) == (1, 0), done.told
    assert f"failed on what an earlier build left: {build.outputs['out']}" in done.told
    assert f"this user may not remove it: {typed(rig, REMOVE, rig.user)}" in done.told
    assert "1 known failure" in done.told
    assert unregistered(rig) == build.entries


def test_a_refusal_that_only_the_whole_log_of_the_builder_tells_is_found(rig: Rig) -> None:
    fail = f"{rig.base}/signals/talker.fail"
    script = (
        "/bin/mkdir -p $out; if ! echo half > $out/half; then"
        " i=0; while [ $i -lt 40 ]; do i=$((i + 1)); echo line $i; done; exit 1; fi;"
        f" ! [ -e {fail} ] || exit 1; /bin/rm $out/half; echo whole > $out/result"
    )
    # It shows the last ten lines, or twenty-five, of a log.
    build = ["nix", "--extra-experimental-features", "nix-command", "build", "--no-link"]
    build += ["--impure", "--expr", derivation("talker", script)]
    with open(fail, "w", encoding="ascii"):
        assert ns.run(rig.namespace, as_user(rig, build)).returncode == 1
    [left] = [path for path in unregistered(rig) if not path.endswith(".lock")]
    os.unlink(fail)
    uid = os.stat(rig.outside(left)).st_uid
    done = run_wedged(rig, uid, words(rig, as_user(rig, build)))
    assert done.status == 0, done.told
    assert WEDGED not in done.told
    assert done.told.count(AGAIN) == 1


def test_a_build_that_fails_by_itself_is_not_run_again(rig: Rig) -> None:
    build = start_build(rig, Recipe("failing"))
    strand(rig, build, Interrupt.BUILDER_FAILS)
    for _ in range(2):  # as another build user refused, it fails; then as any, by itself
        done = ns.run(rig.namespace, words(rig, as_user(rig, nix_build(rig, build.recipe))))
        assert done.returncode == 1
        assert len(re.findall(r"^builder uid=", done.stderr, re.MULTILINE)) == 1, done.stderr
        assert AGAIN not in done.stderr
        assert "it is not run again" in done.stderr
    assert unregistered(rig) == build.entries


def test_what_its_own_build_leaves_is_no_reason_to_run_it_again(rig: Rig) -> None:
    script = "/bin/mkdir -p $out; echo mkdir: cannot create directory $out/x: Permission denied"
    build = ["nix-build", "--no-out-link", "-E", derivation("liar", f"{script} >&2; exit 1")]
    done = ns.run(rig.namespace, words(rig, as_user(rig, build)))
    assert done.returncode == 1
    assert AGAIN not in done.stderr
    assert "so no earlier build left it: the builder made it" in done.stderr
    assert "known failure" not in done.stderr


def test_a_builder_that_refuses_itself_is_told_so_also_after_its_debris_is_gone(rig: Rig) -> None:
    script = "/bin/mkdir -p $out/sub; /bin/chmod 555 $out/sub; echo b > $out/sub/b || exit 1"
    build = ["nix-build", "--no-out-link", "-E", derivation("copier", script)]
    first, second = (ns.run(rig.namespace, words(rig, as_user(rig, build))) for _ in range(2))
    assert (first.returncode, second.returncode) == (1, 1)
    assert (AGAIN in first.stderr, AGAIN in second.stderr) == (False, True)
    for done in (first, second):
        assert "so no earlier build left it: the builder made it" in done.stderr
        assert "another build user" not in done.stderr


def test_debris_that_something_alive_claims_is_kept(rig: Rig) -> None:
    build = start_build(rig, Recipe("orphan"))
    strand(rig, build, Interrupt.SIGKILL_WORKER)
    if not builder_lives(rig, build):
        pytest.skip("this Nix leaves no builder alive without its worker")
    done = run_wedged(rig, build.uid, words(rig, as_user(rig, nix_build(rig, build.recipe))))
    assert done.status == 1
    assert "it is kept: " in done.told
    assert AGAIN not in done.told
    assert builder_lives(rig, build)
    assert unregistered(rig) == build.entries


@pytest.mark.parametrize("number", [SIGINT, SIGTERM])
def test_a_signal_ends_the_build_and_nothing_else_is_done(rig: Rig, number: Signals) -> None:
    recipe = Recipe("interrupted")
    log = f"{rig.base}/logs/run"
    child = ns.start(rig.namespace, words(rig, nix_build(rig, recipe)), log=log, user=rig.user)
    ns.wait_until(lambda: "builder uid=" in ns.read(log), "the builder")
    ns.kill(rig.namespace, number, child.pid)
    status = child.process.wait(20)
    assert status in {1, -number, 128 + number}, status
    assert "storewarden:" not in ns.read(log)
