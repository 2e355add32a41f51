# SPDX-License-Identifier: MIT
"""`storewarden doctor` on real Nix: on a machine that is well, and on broken ones."""

import contextlib
import json
import os
import time
from collections.abc import Iterator

import pytest

from real import namespace as ns
from real.builds import stranded
from real.doctoring import visited
from real.rig import Rig, continue_daemon, kill_daemon, picture, stop_daemon
from real.test_read_only_store import read_only_store
from real.warden import audit_log, helper, scan, typed
from real.watching import service


@contextlib.contextmanager
def edited(rig: Rig, name: str, old: str, new: str) -> Iterator[None]:
    """While that file of its /etc is another; written in place, as it is bound."""
    place = f"{rig.base}/etc/{name}"
    text = ns.read(place)
    assert old in text
    with open(place, "w", encoding="utf-8") as file:
        file.write(text.replace(old, new))
    try:
        yield
    finally:
        with open(place, "w", encoding="utf-8") as file:
            file.write(text)


@contextlib.contextmanager
def mounted(rig: Rig, *words: str) -> Iterator[None]:
    """While that is mounted on the store."""
    made = ns.run(rig.namespace, ["mount", *words, "/nix/store"])
    assert made.returncode == 0, made.stderr
    yield
    assert ns.run(rig.namespace, ["umount", "/nix/store"]).returncode == 0


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_where_the_service_is_at_work_nothing_is_wrong(rig: Rig, user: str) -> None:
    with service(rig):
        visit = visited(rig, user=user)
    assert (visit.code, visit.of("problem")) == (0, set())
    assert visit.severity("content-addressed") == "note"
    assert visit.severity("service") == visit.severity("helper") == "ok"
    assert visit.severity("daemon") == visit.severity("build-users") == "ok"
    unseen = {"audit-log"} if user == "nobody" else set()
    assert visit.of("unknown") - {"database"} == unseen
    if user == "nobody":
        assert typed(rig, "sudo storewarden audit verify") in visit.said("audit-log")


def test_unsandboxed_content_addressed_builds_without_a_service_are_a_problem(rig: Rig) -> None:
    visit = visited(rig, user="nobody")
    assert (visit.code, visit.of("problem")) == (5, {"content-addressed"})
    assert "Permission denied" in visit.said("content-addressed")
    assert "https://github.com/NixOS/nix/issues/13703" in visit.found["content-addressed"]["issues"]


def test_realisations_tell_that_content_addressed_derivations_were_built(rig: Rig) -> None:
    with edited(rig, "nix/nix.conf", " ca-derivations", ""):
        assert visited(rig).severity("content-addressed") == "ok"
    done = ns.run(rig.namespace, ["nix-build", "--no-out-link", "-E", JOB], user="nobody")
    assert done.returncode == 0, done.stderr
    with edited(rig, "nix/nix.conf", " ca-derivations", ""):
        visit = visited(rig)
    assert visit.severity("content-addressed") == "note"
    assert "recorded 1 of their outputs" in visit.said("content-addressed")


JOB = """derivation {
  name = "job"; system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
  args = [ "-c" "echo made > $out" ];
  __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";
}"""


def test_it_changes_nothing(rig: Rig) -> None:
    stranded(rig, "debris")
    places = (rig.store, f"{rig.base}/audit", f"{rig.base}/run")
    before = [picture(place) for place in places]
    for user in ("root", "nobody"):
        assert visited(rig, user=user).code == 5
    assert [picture(place) for place in places] == before


def test_a_helper_that_is_gone_is_missed(rig: Rig) -> None:
    with contextlib.ExitStack() as stack:
        with helper(rig, "daemon"):
            stack.enter_context(service(rig, user="daemon"))
            for user in ("root", "nobody"):
                there = visited(rig, user=user)
                assert (there.code, there.severity("helper")) == (0, "ok")
        gone = visited(rig, user="nobody")
        assert (gone.code, gone.severity("helper")) == (5, "problem")
        assert "nothing is there" in gone.said("helper")


def test_looking_for_the_helper_does_not_disturb_it(rig: Rig) -> None:
    with helper(rig, "daemon"), service(rig, user="daemon"):
        before = ns.read(f"{rig.base}/logs/helper")
        assert visited(rig).severity("helper") == "ok"
        assert ns.read(f"{rig.base}/logs/helper") == before


def test_a_damaged_audit_log_is_found_and_the_advice_begins_a_sound_one(rig: Rig) -> None:
    stranded(rig, "debris")
    assert scan(rig, "--yes")["outcomes"]
    assert visited(rig).severity("audit-log") == "ok"
    with open(audit_log(rig), "r+b") as file:
        file.seek(40)
        file.write(b"X")
    visit = visited(rig)
    assert (visit.code, visit.severity("audit-log")) == (5, "problem")
    command = visit.found["audit-log"]["steps"][-1]["command"].removeprefix("sudo ")
    assert ns.run(rig.namespace, ["sh", "-c", command]).returncode == 0
    assert visited(rig).severity("audit-log") == "ok"
    assert os.path.exists(f"{rig.base}/audit.damaged/audit.jsonl")


def test_a_group_of_build_users_without_members_is_a_problem(rig: Rig) -> None:
    members = ",".join(rig.build_users.values())
    with edited(rig, "group", members, ""):
        assert "has no members" in visited(rig).said("build-users")
    with edited(rig, "group", "nixbld:", "others:"):
        assert "does not exist" in visited(rig).said("build-users")
    with edited(rig, "group", members, f"{members},nixbld99"):
        assert "Build users are gone: nixbld99" in visited(rig).said("build-users")


def test_a_build_user_with_the_uid_of_somebody_else_is_a_problem(rig: Rig) -> None:
    line = "nixbld12:x:30012:"
    with edited(rig, "passwd", line, f"postgres2:x:30012:30012::/:/bin/sh\n{line}"):
        visit = visited(rig)
    assert "nixbld12 is also postgres2" in visit.said("uid-clash")
    assert visit.severity("uid-clash") == "problem"


def test_a_person_among_the_build_users_is_a_problem(rig: Rig) -> None:
    members = ",".join(rig.build_users.values())
    with (
        edited(rig, "group", members, f"{members},alice2"),
        edited(rig, "passwd", "nixbld12:x:", "alice2:x:31999:31999::/:/bin/bash\nnixbld12:x:"),
    ):
        assert "alice2" in visited(rig).said("logins")


def test_another_group_than_nixs_is_a_problem(rig: Rig) -> None:
    visit = visited(rig, 'build-group = "wheel"')
    assert visit.severity("build-group") == "problem"
    assert 'build-group = "nixbld"' in visit.said("build-group")


def test_a_store_that_is_only_mounted_read_only_is_no_problem(rig: Rig) -> None:
    with read_only_store(rig):
        visit = visited(rig)
        assert visit.severity("store") == "note"
        assert "mounted read-only" in visit.said("store")
        with service(rig):
            assert "the helper copes" in visited(rig).said("store")


def test_a_read_only_file_system_is_one(rig: Rig) -> None:
    with mounted(rig, "-t", "tmpfs", "-o", "ro", "none"):
        visit = visited(rig)
    assert (visit.code, visit.severity("store")) == (5, "problem")
    assert " mount -o remount,rw /nix/store" in visit.said("store")


def test_a_disk_that_is_nearly_full_and_one_without_inodes_are_problems(rig: Rig) -> None:
    with mounted(rig, "-t", "tmpfs", "-o", "size=64m,nr_inodes=100", "none"):
        visit = visited(rig)
    assert {"room-store", "inodes-store"} <= visit.of("problem")


def test_a_store_on_an_overlay_is_a_problem(rig: Rig) -> None:
    upper, work = f"{rig.base}/scratch/upper", f"{rig.base}/scratch/work"
    # A file system of its own, where this machine's would not take an overlay.
    for words in (
        ["mount", "-t", "tmpfs", "none", f"{rig.base}/scratch"],
        ["mkdir", upper, work],
    ):
        assert ns.run(rig.namespace, words).returncode == 0
    try:
        how = f"lowerdir=/nix/store,upperdir={upper},workdir={work}"
        with mounted(rig, "-t", "overlay", "-o", how, "overlay"):
            visit = visited(rig)
        assert visit.severity("store") == "problem"
        assert "file system of type overlay" in visit.said("store")
    finally:
        assert ns.run(rig.namespace, ["umount", f"{rig.base}/scratch"]).returncode == 0


def test_nix_that_cannot_be_asked_ends_it_with_3(rig: Rig) -> None:
    kill_daemon(rig)
    visit = visited(rig)
    assert (visit.code, visit.severity("daemon")) == (3, "problem")
    assert "Nobody listens" in visit.said("daemon")
    absent = visited(rig, 'nix = "/nix/nowhere/nix"')
    assert (absent.code, absent.severity("nix")) == (3, "problem")


@pytest.mark.slow
def test_a_daemon_that_hangs_is_not_waited_for_long(rig: Rig) -> None:
    stop_daemon(rig)
    try:
        began = time.monotonic()
        visit = visited(rig)
        assert time.monotonic() - began < 30
    finally:
        continue_daemon(rig)
    assert (visit.code, visit.severity("daemon")) == (3, "problem")
    assert "did not answer within" in visit.said("daemon")


@pytest.mark.slow
def test_settings_that_the_daemon_has_not_read_are_told_as_unknown(rig: Rig) -> None:
    assert "settings" not in visited(rig).found
    time.sleep(6)  # a process's start is known to some seconds only
    with edited(rig, "nix/nix.conf", "substituters", "# changed\nsubstituters"):
        visit = visited(rig, user="nobody")
    assert visit.severity("settings") == "unknown"
    assert "before nix.conf was last changed" in visit.said("settings")


def test_for_people_it_is_80_columns_wide_and_counts(rig: Rig) -> None:
    done = ns.run(rig.namespace, [rig.python, "-m", "storewarden", "doctor"], user="nobody")
    assert done.returncode == 5
    *lines, empty, counts = done.stdout.splitlines()
    assert counts.startswith("1 problem, ")
    assert empty == ""
    assert lines[0].startswith("PROBLEM     Content-addressed derivations are on")
    # A command to copy stays whole.
    assert max(len(line) for line in lines if rig.base not in line) <= 80


def test_the_document_says_which_nix_it_is(rig: Rig) -> None:
    words = [rig.python, "-m", "storewarden", "doctor", "--json"]
    document = json.loads(ns.run(rig.namespace, words).stdout)
    version = ".".join(map(str, rig.nix_version))
    assert document["nix"]["version"].startswith(f"Nix {version}.")
    assert (document["storeDir"], document["stateDir"]) == ("/nix/store", "/nix/var/nix")


# `storewarden doctor` on real Nix whose nix.conf is closed to some, or broken.


@contextlib.contextmanager
def closed(rig: Rig, name: str) -> Iterator[None]:
    """While only root may read that file of its /etc."""
    os.chmod(f"{rig.base}/etc/{name}", 0o600)
    yield
    os.chmod(f"{rig.base}/etc/{name}", 0o644)


@pytest.mark.parametrize("line", ["nonsense", "cores = many", "include /nowhere"])
def test_a_configuration_that_nix_does_not_take_is_to_be_mended(rig: Rig, line: str) -> None:
    with edited(rig, "nix/nix.conf", "substituters", f"{line}\nsubstituters"):
        visit = visited(rig, user="nobody")
    assert (visit.code, visit.severity("nix")) == (3, "problem")
    assert "Nix does not run with its configuration: nix: error: " in visit.said("nix")
    assert line.rsplit(maxsplit=1)[-1] in visit.said("nix")
    assert "install Nix" not in visit.said("nix")
    assert visit.severity("daemon") == "unknown"
    assert "Restart" not in visit.said("daemon")
    assert visited(rig).severity("daemon") == "ok"  # it has been at work all the time


@pytest.mark.parametrize("named", ["nix.conf", "tokens"])
def test_settings_in_a_file_that_only_root_may_read_are_told_to_root_alone(
    rig: Rig, named: str
) -> None:
    """Nix says nothing of it, and shows its defaults: `sandbox = true` where there is none."""
    place = f"{rig.base}/etc/nix/{named}"
    with (
        edited(rig, "nix/nix.conf", "substituters", "!include tokens\nsubstituters"),
        open(place, "a", encoding="utf-8"),
        closed(rig, f"nix/{named}"),
    ):
        visit = visited(rig, user="nobody")
        assert visited(rig).severity("content-addressed") == "problem"
    assert (visit.code, visit.severity("settings")) == (0, "unknown")
    assert f"This user may not read /etc/nix/{named}" in visit.said("settings")
    assert typed(rig, "sudo storewarden doctor") in visit.said("settings")
    assert not {"sandbox", "content-addressed", "build-users"} & set(visit.found)
