# SPDX-License-Identifier: MIT
"""From a checkout to nothing left: what a person with a Mac does, one after the other."""

import os

from mac import installed as service
from mac.installed import HELPER, WATCHER
from mac.machine import Mac
from mac.root import OWN_CHECKOUT
from real import namespace as ns
from real.builds import Build, Interrupt, builder_lives, let_finish, retry, stranded
from real.rig import unregistered


def removed(mac: Mac, build: Build) -> None:
    """Return once the watcher has had all of that removed, and is seen to have."""
    ns.wait_until(lambda: not unregistered(mac.rig) & build.entries, "the removal")
    names = {os.path.basename(path) for path in build.entries}
    ns.wait_until(lambda: names <= service.outcomes(mac).keys(), "the audit log")
    found = service.outcomes(mac)
    assert {found[name] for name in names} == {"removed"}


def test_the_demo_runs_for_an_ordinary_user(mac: Mac) -> None:
    done = mac.warden("demo")
    assert done.returncode == 0, done.stderr
    assert "all in order" in done.stdout


def test_a_scan_shows_real_debris_and_removes_it_as_root_without_any_service(mac: Mac) -> None:
    build = stranded(mac.rig, "interrupted")
    assert build.uid == 351
    assert unregistered(mac.rig) == build.entries
    shown = mac.warden("scan", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "owner _nixbld1 (uid 351)" in " ".join(shown.stdout.split())
    assert all(path in shown.stdout for path in build.entries)
    assert unregistered(mac.rig) == build.entries
    assert mac.warden("scan", "--yes", "--min-age", "0", user="root").returncode == 0
    assert unregistered(mac.rig) == set()
    assert retry(mac.rig, build.recipe, not_uid=build.uid).returncode == 0


def test_setup_tells_what_it_would_do_and_does_nothing(mac: Mac) -> None:
    before = service.files(mac)
    done = mac.warden("setup", "--dry-run", user="root")
    assert done.returncode == 0, done.stderr
    assert "launchctl bootstrap system /Library/LaunchDaemons/org.storewarden" in done.stdout
    assert "none of them is taken" in done.stdout
    assert service.files(mac) == before
    assert service.job(mac, HELPER) is None


def test_setup_starts_helper_and_watcher_and_the_next_one_changes_nothing(mac: Mac) -> None:
    first = service.set_up(mac)
    assert "the watcher runs, and its user reaches the helper" in first.stdout
    helper, watcher = service.pid(mac, HELPER), service.pid(mac, WATCHER)
    owners = {one.pid: one.uid for one in ns.processes(mac.namespace)}
    assert helper is not None
    assert watcher is not None
    assert (owners[helper], owners[watcher]) == (0, 501)
    before = service.files(mac)
    second = service.set_up(mac)
    assert "nothing to change" in second.stdout
    assert service.files(mac) == before
    assert (service.pid(mac, HELPER), service.pid(mac, WATCHER)) == (helper, watcher)


def test_after_a_boot_both_jobs_come_back(installed: Mac) -> None:
    service.works(installed)
    assert service.status(installed)["wakes"] == "polling"


def test_the_watcher_finds_real_debris_by_polling_and_has_the_helper_remove_it(
    installed: Mac,
) -> None:
    service.works(installed)
    build = stranded(installed.rig, "interrupted")
    removed(installed, build)
    log = installed.warden("audit", "show", user="root").stdout
    assert "asked by uid 501" in log
    assert retry(installed.rig, build.recipe, not_uid=build.uid).returncode == 0
    shown = installed.warden("status")
    assert "told of changes by polling" in shown.stdout
    assert "all is well" in shown.stdout


def test_what_a_builder_still_writes_to_is_kept_and_removed_once_it_has_ended(
    installed: Mac,
) -> None:
    service.works(installed)
    build = stranded(installed.rig, "orphaned", Interrupt.SIGKILL_WORKER)
    assert builder_lives(installed.rig, build)
    ns.wait_until(lambda: service.status(installed)["watched"] > 0, "the watcher to see it")
    assert build.outputs["out"] in unregistered(installed.rig)
    let_finish(installed.rig, build.recipe)
    removed(installed, build)


def test_another_user_is_not_served(installed: Mac) -> None:
    service.works(installed)
    build = stranded(installed.rig, "interrupted")
    asked = installed.warden("repair", *build.entries, user="other")
    assert asked.returncode != 0
    removed(installed, build)


def test_the_doctor_finds_a_machine_that_is_well_but_for_its_builds(installed: Mac) -> None:
    service.works(installed)
    done = installed.warden("doctor")
    assert done.returncode in {0, 1}, done.stderr
    assert "ok          The service runs, and has no problem\n" in done.stdout
    assert "ok          The helper listens at /private/var/db/storewarden" in done.stdout
    assert "ok          8 build users in nixbld\n" in done.stdout
    assert "(apfs, mounted at /nix)" in done.stdout


def test_an_upgrade_runs_the_new_code_and_takes_the_old_away(installed: Mac) -> None:
    service.works(installed)
    helper, watcher = service.pid(installed, HELPER), service.pid(installed, WATCHER)
    old = set(os.listdir(installed.outside("/opt/storewarden")))
    with open(installed.outside(f"{OWN_CHECKOUT}/src/storewarden/errors.py"), "a") as file:
        file.write('\nNEW = "newer"\n')
    service.set_up(installed)
    new = set(os.listdir(installed.outside("/opt/storewarden")))
    assert len(new) == 1
    assert not old & new
    assert service.pid(installed, HELPER) not in {None, helper}
    assert service.pid(installed, WATCHER) not in {None, watcher}
    removed(installed, stranded(installed.rig, "after"))


def test_uninstall_leaves_nothing_but_the_audit_log(mac: Mac) -> None:
    mac.warden("demo")
    before = service.files(mac)
    service.set_up(mac)
    removed(mac, stranded(mac.rig, "interrupted"))
    done = mac.warden("setup", "--uninstall", user="root")
    assert done.returncode == 0, done.stdout + done.stderr
    assert service.job(mac, HELPER) is None
    assert service.job(mac, WATCHER) is None
    # Nix's own: the derivation, and what it knows of builds.
    left = {path for path in service.files(mac).keys() - before.keys() if path[:5] != "/nix/"}
    assert left == {service.AUDIT_LOG, f"{service.AUDIT_LOG}/audit.jsonl"}
    after = service.files(mac)
    assert {path: after.get(path) for path in before if path[:5] != "/nix/"} == {
        path: state for path, state in before.items() if path[:5] != "/nix/"
    }
