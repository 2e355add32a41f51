# SPDX-License-Identifier: MIT
"""What is said of live builds, debris and valid paths of a real Nix, by root and by others."""

import os
import shlex
import subprocess
from pathlib import PurePath

from real import namespace as ns
from real.builds import Build, let_finish, start_build, stranded
from real.explaining import commands, explained, explained_as_text, listed, pids
from real.recipes import Recipe, arguments
from real.rig import Rig, picture, unregistered
from real.warden import finding, scan, statuses, typed
from storewarden.readable import REPAIRING, repair_path


def test_a_live_build_is_told_with_its_lock_its_worker_its_client_and_its_builder(
    rig: Rig,
) -> None:
    build = start_build(rig, Recipe("live"))
    output, derivation, lock = explained(rig, build.outputs["out"], build.drv, build.locks["out"])
    assert (output["state"], output["kind"], output["verdict"]) == (
        "unregistered",
        "output",
        "keep",
    )
    assert output["outputOf"] == [{"deriver": build.drv, "output": "out"}]
    assert output["owner"]["name"] == rig.build_users[build.uid]
    assert build.builder in pids(output["processes"])
    assert pids(output["tempRoots"]) == {build.worker}
    assert output["userLock"]["path"].endswith(f"/userpool/{build.uid}")
    for told in (output, derivation, lock):
        [held] = told["locks"]
        assert (held["path"], held["held"]) == (build.locks["out"], "yes")
        [holder] = held["holders"]
        assert (holder["pid"], holder["client"]) == (build.worker, build.client.pid)
        assert holder["user"] == "root"
        assert "nix-daemon" in holder["command"]
        assert "nix-build" in holder["clientCommand"]
    assert f"kill {build.client.pid}" in commands(output)
    assert derivation["outputs"] == [
        {"name": "out", "path": build.outputs["out"], "scratch": True, "there": True}
    ]
    assert (lock["kind"], lock["verdict"]) == ("lock", "keep")


def test_an_ordinary_user_is_told_who_holds_a_lock_and_that_root_sees_more(rig: Rig) -> None:
    build = start_build(rig, Recipe("live", "ia"))
    [told] = explained(rig, build.outputs["out"], user="nobody")
    [held] = told["locks"]
    assert pids(held["holders"]) == {build.worker}
    assert (told["tempRoots"], held["wantedBy"]) == (None, None)
    assert told["processesUnseen"] > 0
    text = explained_as_text(rig, build.outputs["out"], user="nobody")
    assert typed(rig, f"sudo storewarden explain {build.outputs['out']}") in text
    assert "temp roots  cannot be read by this user" in text


def test_debris_is_told_to_go_by_the_very_rule_of_a_scan(rig: Rig) -> None:
    build = stranded(rig, "dead")
    findings = {one["path"]: one for one in scan(rig)["findings"]}
    before = picture(rig.store)
    told = {one["path"]: one for one in explained(rig, *build.entries)}
    assert picture(rig.store) == before, "to explain changed the store"
    assert set(told) == set(findings) == build.entries
    for path, one in told.items():
        assert (one["verdict"], one["kind"]) == (findings[path]["verdict"], findings[path]["kind"])
        assert one["would"] == ["remove it: nothing claims it any more"]
        assert commands(one) == [typed(rig, "sudo storewarden scan --yes", "root")]
        assert one["outputOf"] == [{"deriver": build.drv, "output": "out"}]
    scan(rig, "--yes")
    assert unregistered(rig) == set()
    for one in explained(rig, *build.entries):
        assert (one["state"], one["valid"], one["locks"]) == ("absent", "no", [])
    [gone] = explained(rig, build.outputs["out"])
    assert gone["outputOf"] == [{"deriver": build.drv, "output": "out"}]
    assert commands(gone) == [f"nix-store --realise {build.drv}"], "it tells who wants it"


def test_what_a_renumbered_build_user_left_goes_if_proved_and_else_by_the_command_that_is_told(
    rig: Rig,
) -> None:
    path, lone = stranded(rig, "proved").outputs["out"], f"/nix/store/{'0' * 32}-unproved"
    os.mkdir(rig.outside(lone))
    for left in (path, lone):
        subprocess.run(["chown", "-R", "4321:4321", rig.outside(left)], check=True)
    report = scan(rig, "--yes")
    assert (finding(report, path)["kind"], statuses(report)[path]) == ("output", "removed")
    assert (finding(report, lone)["kind"], lone in statuses(report)) == ("foreign", False)
    why, cure = finding(report, lone)["reasons"]
    assert "of an earlier installation" in why
    [told] = explained(rig, lone)
    assert commands(told) == [cure.partition(": ")[2]]
    assert _typed(rig, commands(told)[0]) == 0
    assert unregistered(rig) == set()


def test_a_valid_path_is_told_with_its_root_its_referrer_and_the_process_in_it(rig: Rig) -> None:
    path, _ = _finished(rig, "kept")
    link = f"{rig.base}/scratch/result"
    _ok(rig, "nix-store", "--add-root", link, "--indirect", "--realise", path)
    referrer = _added(rig, "referrer", f"{path}\n")
    _ok(rig, "nix-store", "--add-root", f"{link}-2", "--indirect", "--realise", referrer)
    worker = ns.start(
        rig.namespace, ["sh", "-c", f"cd {path} && exec sleep 300"], log=f"{rig.base}/logs/sleep"
    )
    ns.wait_until(lambda: bool(explained(rig, path)[0]["processes"]), "a process in it")

    [told] = explained(rig, f"{link}/result")
    assert (told["path"], told["inside"], told["state"]) == (path, "result", "valid")
    assert told["links"] == [f"{link} -> {path}"]
    assert f"{link} -> {path}" in told["roots"]
    assert f"/proc/{worker.pid}/cwd -> {path}" in told["roots"]
    assert told["referrers"] == [referrer]
    assert f"{link}-2 -> {referrer}" in told["roots"]
    assert told["verdict"] is None
    assert told["would"] == ["leave it alone: it never touches a valid path"]
    [process] = told["processes"]
    assert (process["pid"], process["command"]) == (worker.pid, "sleep 300")
    assert process["ways"][0] == "works in it"
    assert f"rm {link}" in commands(told)
    assert any("--referrers-closure" in command for command in commands(told))


def test_a_process_that_runs_from_a_path_is_told_to_keep_it(rig: Rig) -> None:
    added = ns.run(rig.namespace, ["nix-store", "--add", os.path.realpath("/bin/sleep")])
    path = added.stdout.strip()
    child = ns.start(rig.namespace, [path, "300"], log=f"{rig.base}/logs/sleep")
    ns.wait_until(lambda: bool(explained(rig, path)[0]["processes"]), "the program to run")
    [told] = explained(rig, path)
    [process] = told["processes"]
    assert process["pid"] == child.pid
    assert "runs a program from it" in process["ways"]
    assert f"/proc/{child.pid}/exe -> {path}" in told["roots"]
    assert f"ps -fp {child.pid}" in commands(told)


def test_the_command_that_is_told_for_an_unused_path_deletes_it(rig: Rig) -> None:
    path = _added(rig, "unused", "text\n")
    [told] = explained(rig, path)
    assert (told["roots"], told["referrers"]) == ([], [])
    _ok(rig, *commands(told)[0].split())
    [told] = explained(rig, path)
    assert (told["state"], told["kind"]) == ("absent", None)


def test_a_path_that_only_a_temp_root_keeps_is_told_with_its_process(rig: Rig) -> None:
    build = start_build(rig, Recipe("rooting"))
    [told] = explained(rig, build.drv)
    assert (told["state"], pids(told["tempRoots"])) == ("valid", {build.worker})
    assert told["roots"] == [f"{{temp:{build.worker}}} -> {build.drv}"]
    assert f"ps -fp {build.worker}" in commands(told)


def test_the_sudo_that_explains_a_path_is_not_told_as_what_keeps_it(rig: Rig) -> None:
    path = _added(rig, "unused", "text\n")
    command = ["env", f"SUDO_COMMAND=explain {path}", rig.python, "-m", "storewarden"]
    done = ns.run(rig.namespace, [*command, "explain", path])
    assert done.returncode == 0, done.stderr
    assert "roots       none" in done.stdout


def test_what_is_registered_and_not_there_is_told_to_be_missing(rig: Rig) -> None:
    path = _added(rig, "gone", "text\n")
    os.unlink(rig.outside(path))
    [told] = explained(rig, path)
    assert (told["state"], told["valid"], told["kind"]) == ("missing", "yes", None)
    assert commands(told) == [f"nix-store --delete {path}"]
    assert "NOT THERE, but registered as valid since " in explained_as_text(rig, path)


def test_the_command_that_is_told_for_a_missing_path_brings_it_back(rig: Rig) -> None:
    path, build = _finished(rig, "gone", "ia")
    before = _registration(rig, path)
    _lose(rig, path)
    [repair] = commands(explained(rig, path)[0])
    assert _typed(rig, repair.replace(" --option experimental-features ''", "")) == 0
    assert not os.path.exists(rig.outside(path)), "Nix repairs without the option: leave it away"
    assert _typed(rig, repair) == 0
    assert os.path.isdir(rig.outside(path))
    assert _registration(rig, path) == before == (build.drv, None)


def test_the_commands_that_are_told_for_a_damaged_path_make_it_whole(rig: Rig) -> None:
    path, _ = _finished(rig, "damaged", "ia")
    file = rig.outside(f"{path}/result")
    whole = ns.read(file)
    repair = next(one for one in commands(explained(rig, path)[0]) if "--repair-path" in one)
    for command in (repair, f"nix-store --verify --check-contents --repair {REPAIRING}"):
        os.chmod(file, 0o644)
        with open(file, "w", encoding="ascii") as opened:
            opened.write("damaged\n")
        assert _typed(rig, command) == 0
        assert ns.read(file) == whole


def test_what_nix_cannot_repair_comes_back_by_the_last_command_that_is_told(rig: Rig) -> None:
    path, build = _finished(rig, "floating")
    _lose(rig, path)
    told = explained(rig, path)[0]
    repair, anew = commands(told)
    assert (told["deriver"], _typed(rig, repair)) == (build.drv, 1)
    assert not os.path.exists(rig.outside(path))
    assert _typed(rig, anew) == 0
    assert os.path.isdir(rig.outside(path))

    source = _added(rig, "source", "text\n")
    _lose(rig, source)
    [anew] = commands(explained(rig, source)[0])
    assert (_typed(rig, repair_path(source)), _typed(rig, anew)) == (1, 0)
    assert _added(rig, "source", "text\n") == source
    assert os.path.exists(rig.outside(source))


def test_a_derivation_that_is_missing_is_instantiated_again_once_nix_has_forgotten_it(
    rig: Rig,
) -> None:
    instantiate = ["nix-instantiate", *arguments(rig, Recipe("lost"))]
    derivation = ns.run(rig.namespace, instantiate).stdout.strip()
    _lose(rig, derivation)
    [forget] = commands(explained(rig, derivation)[0])
    assert (_typed(rig, repair_path(derivation)), _typed(rig, forget)) == (1, 0)
    assert ns.run(rig.namespace, instantiate).stdout.strip() == derivation
    assert os.path.exists(rig.outside(derivation))


def test_the_command_that_is_told_for_a_path_of_another_store_deletes_it_there(rig: Rig) -> None:
    store, state = f"{rig.base}/scratch/my store", f"{rig.base}/scratch/state"
    nix = ["env", f"NIX_STORE_DIR={store}", f"NIX_STATE_DIR={state}", "nix-store"]
    path = ns.run(rig.namespace, [*nix, "--add", f"{rig.base}/outside/file"]).stdout.strip()
    assert path.startswith(f"{store}/")
    assert os.path.exists(path)
    [told] = explained(rig, path, "--store-dir", store, "--state-dir", state)
    assert (told["state"], told["roots"], told["referrers"]) == ("valid", [], [])
    assert _typed(rig, commands(told)[0]) == 0
    assert not os.path.exists(path)


def test_the_running_system_is_not_told_to_be_removed_from_its_roots(rig: Rig) -> None:
    path = _added(rig, "system", "text\n")
    root = "/nix/var/nix/gcroots/current-system"
    os.symlink(path, rig.outside(root))
    [told] = explained(rig, path)
    assert told["roots"] == [f"{root} -> {path}"]
    assert told["advice"][0]["purpose"].startswith("it belongs to the running system")
    assert not any(command.startswith("rm ") for command in commands(told))


def test_a_name_that_a_builder_chose_is_one_word_in_every_command_to_copy(rig: Rig) -> None:
    plain, broken = "/nix/store/x; touch PWNED", "/nix/store/x\n; touch PWNED"
    for path in (plain, broken):
        with open(rig.outside(path), "w", encoding="ascii"):
            pass
    text = " ".join(explained_as_text(rig, plain, user="nobody").split())
    assert typed(rig, f"sudo storewarden explain '{plain}'") in text
    assert text.count("touch PWNED") == text.count(plain)
    [told] = explained(rig, plain)
    assert [shlex.split(command)[-1] for command in commands(told)] == [plain]
    assert commands(explained(rig, broken)[0]) == []
    assert "sudo" not in explained_as_text(rig, broken, user="nobody")


def test_waiting_for_lock_on_has_an_answer(rig: Rig) -> None:
    dead = stranded(rig, "dead")
    first = start_build(rig, Recipe("wanted"))
    second = _waiting(rig, first)
    locks = listed(rig)
    held = locks[first.locks["out"]]
    assert (held["held"], held["deriver"], held["output"]) == ("yes", first.drv, "out")
    assert pids(held["holders"]) == {first.worker}
    assert [one["client"] for one in held["wantedBy"]] == [second.pid]
    stale = locks[dead.locks["out"]]
    assert (stale["held"], stale["holders"], stale["wantedBy"]) == ("no", [], [])
    assert next(iter(locks)) == first.locks["out"], "held ones come first"
    user = locks[f"/nix/var/nix/userpool/{first.uid}"]
    assert pids(user["holders"]) == {first.worker}

    seen = listed(rig, user="nobody")[first.locks["out"]]
    assert (pids(seen["holders"]), seen["wantedBy"]) == ({first.worker}, None)


def test_with_all_the_locks_that_lie_there_free_are_listed_too(rig: Rig) -> None:
    stranded(rig, "dead")
    few, every = listed(rig), listed(rig, "--all")
    assert set(few) < set(every)
    assert every["/nix/var/nix/gc.lock"]["held"] == "no"
    assert {PurePath(path).parent.name for path in every} >= {"userpool", "db", "store"}


def test_a_collector_at_work_is_told(rig: Rig) -> None:
    path = _added(rig, "some", "text\n")
    with ns.flocked(rig.namespace, "/nix/var/nix/gc.lock"):
        [told] = explained(rig, path)
        assert (told["collector"]["held"], told["collector"]["shared"]) == ("yes", False)
        assert "collector   AT WORK" in explained_as_text(rig, path)
    assert "collector   not at work" in explained_as_text(rig, path)


def _lose(rig: Rig, path: str) -> None:
    subprocess.run(["rm", "-rf", rig.outside(path)], check=True)


def _typed(rig: Rig, command: str) -> int:
    """How a command ends that root types; there may be no sudo."""
    done = ns.run(rig.namespace, ["sh", "-c", command.removeprefix("sudo ")])
    return done.returncode


def _registration(rig: Rig, path: str) -> tuple[str | None, str | None]:
    [told] = explained(rig, path)
    return told["deriver"], told["ca"]


def _finished(rig: Rig, name: str, kind: str = "ca") -> tuple[str, Build]:
    build = start_build(rig, Recipe(name, kind))
    let_finish(rig, build.recipe)
    assert build.client.process.wait(30) == 0, ns.read(build.log)
    return ns.read(build.log).split()[-1], build


def _added(rig: Rig, name: str, text: str) -> str:
    """A text in the store, which refers to the paths in it."""
    done = ns.run(
        rig.namespace,
        ["nix-instantiate", "--eval", "--read-write-mode", "--expr", _to_file(name, text)],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().strip('"')


def _to_file(name: str, text: str) -> str:
    path = text.strip()
    content = f"${{builtins.storePath {path}}}" if path.startswith("/nix/store/") else path
    return f'builtins.toFile "{name}" "{content}"'


def _waiting(rig: Rig, first: Build) -> ns.Child:
    """Another user's build of the same, which says that it waits."""
    log = f"{rig.base}/logs/second"
    command = ["nix-build", "--no-out-link", *arguments(rig, first.recipe)]
    second = ns.start(rig.namespace, command, log=log, user="daemon")
    ns.wait_until(lambda: "waiting for lock on" in ns.read(log), "the second build to wait")
    return second


def _ok(rig: Rig, *command: str) -> None:
    done = ns.run(rig.namespace, command)
    assert done.returncode == 0, done.stderr
