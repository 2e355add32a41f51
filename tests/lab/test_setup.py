# SPDX-License-Identifier: MIT
"""Set up on a machine with systemd: once, twice, as an upgrade, cut off, and taken back."""

import os
from pathlib import Path

from lab.machine import control
from lab.service import (
    HELPER,
    ONLY_TWO,
    SOCKET,
    WATCHER,
    accounts,
    exposure,
    journal,
    main_process,
    names,
    python_version,
    run,
    setup,
    setup_again,
)
from real import namespace as ns
from real.builds import interrupted, retry
from real.rig import Rig, picture, unregistered

NOTHING = f"{0:016x}"
UNITS = "/etc/systemd/system"


def places(rig: Rig) -> list[str]:
    return [f"{rig.root}/{place}" for place in ("etc", "opt", "usr/local", "var/log/storewarden")]


def assert_it_removes_debris_and_builds_go_on(rig: Rig, name: str) -> None:
    build = interrupted(rig, name)
    ns.wait_until(lambda: not unregistered(rig), f"the service to remove it:\n{journal(rig)}", 60)
    done = retry(rig, build.recipe)
    assert done.returncode == 0, done.stderr


def assert_only_root_can_change_it(rig: Rig, command: str) -> None:
    code = command.partition("path=")[2].partition("/bin/python ")[0]
    assert code.startswith("/opt/storewarden/")
    others = ["find", code, "!", "-user", "root", "-o", "!", "-type", "l", "-perm", "/022"]
    assert ns.run(rig.namespace, others).stdout == ""


def test_a_dry_run_shows_all_of_it_and_changes_nothing(rig: Rig, python: str) -> None:
    before = names(rig), accounts(rig), picture(f"{rig.root}/etc")
    for user in ("root", rig.user):
        done = run(rig, [python, "-m", "storewarden", "setup", "--dry-run"], user)
        assert done.returncode == 0, done.stderr
        assert f"write   {UNITS}/{WATCHER} (new)\n" in done.stdout
        assert f"run     systemctl start {SOCKET} {WATCHER}\n" in done.stdout
    assert (names(rig), accounts(rig), picture(f"{rig.root}/etc")) == before


def test_it_is_set_up_does_its_work_and_is_taken_back_whole(rig: Rig, python: str) -> None:
    before = names(rig), accounts(rig)
    said = setup(rig, python)
    assert said.endswith("the watcher runs, and its user reaches the helper\n")
    shown = ns.run(rig.namespace, ["systemd-analyze", "verify", WATCHER, SOCKET, HELPER])
    assert (shown.returncode, shown.stderr) == (0, "")

    assert_it_removes_debris_and_builds_go_on(rig, "job")
    helper, watcher = main_process(rig, HELPER), main_process(rig, WATCHER)
    assert {helper[f"Cap{which}"] for which in ("Eff", "Prm", "Bnd")} == {ONLY_TWO}
    assert {watcher[f"Cap{which}"] for which in ("Eff", "Prm", "Bnd")} == {NOTHING}
    assert watcher["Uid"].split()[0] not in {"0", "1500"}
    assert exposure(rig, HELPER) <= 1.5
    assert exposure(rig, WATCHER) <= 1.0

    control(rig, "reload", WATCHER)
    assert_only_root_can_change_it(rig, control(rig, "show", "--property=ExecStart", HELPER))

    seen = picture(*places(rig)), control(rig, "show", "--property=MainPID", WATCHER)
    assert setup_again(rig).startswith("nothing to change: everything is as it should be\n")
    assert (picture(*places(rig)), control(rig, "show", "--property=MainPID", WATCHER)) == seen

    done = run(rig, ["storewarden", "setup", "--uninstall"])
    assert done.returncode == 0, done.stderr
    assert {path for path in names(rig) ^ before[0] if "/per-user/" not in path} == {
        "/var/log/storewarden",
        "/var/log/storewarden/audit.jsonl",
    }
    assert accounts(rig) == before[1]
    assert not os.path.exists(f"{rig.root}/run/storewarden")


def test_a_new_version_takes_the_place_of_the_old_one(rig: Rig, python: str) -> None:
    setup(rig, python)
    [old] = os.listdir(f"{rig.root}/opt/storewarden")
    before = main_process(rig, WATCHER)["Pid"]
    library = f"{os.path.dirname(os.path.dirname(python))}/lib/python{python_version(rig)}"
    with open(f"{library}/site-packages/storewarden/scan.py", "a", encoding="ascii") as file:
        file.write("# newer\n")
    said = setup(rig, python)
    [new] = os.listdir(f"{rig.root}/opt/storewarden")
    assert old != new
    assert f"remove  /opt/storewarden/{old}/\n" in said
    assert main_process(rig, WATCHER)["Pid"] != before
    assert f"ExecStart=/opt/storewarden/{new}/bin/python" in Path(
        f"{rig.root}{UNITS}/{WATCHER}"
    ).read_text(encoding="ascii")
    assert_it_removes_debris_and_builds_go_on(rig, "upgraded")


def test_it_starts_what_systemd_has_started_too_often(rig: Rig, python: str) -> None:
    setup(rig, python)
    control(rig, "stop", WATCHER, SOCKET, HELPER)
    control(rig, "reset-failed", SOCKET)
    for _ in range(5):  # in ten seconds, and systemd's own limit is reached
        control(rig, "start", SOCKET)
        control(rig, "stop", SOCKET)
    assert "run     systemctl start" in setup_again(rig)
    assert control(rig, "is-active", SOCKET, WATCHER) == "active\nactive\n"


def test_it_is_taken_back_while_its_user_is_just_ending_something(rig: Rig, python: str) -> None:
    before = names(rig), accounts(rig)
    setup(rig, python)
    log = f"{rig.base}/logs/last"
    last = ns.start(rig.namespace, ["sh", "-c", "echo on; sleep 5"], log=log, user="storewarden")
    ns.wait_until(lambda: "on" in ns.read(log), "a process of the user's")
    done = run(rig, ["storewarden", "setup", "--uninstall"])
    assert done.returncode == 0, done.stderr
    assert last.process.wait(1) == 0, "it was done before that had ended"
    assert accounts(rig) == before[1]
    assert not any(path.startswith("/opt/storewarden") for path in names(rig) ^ before[0])


def test_a_program_that_is_roots_alone_runs_where_it_is(rig: Rig, python: str) -> None:
    place = "/usr/local/lib/storewarden-lab"
    user_owned = os.path.dirname(os.path.dirname(python))
    copied = f"cp -r {user_owned} {place} && chown -R root:root {place} && chmod -R go-w {place}"
    assert run(rig, ["sh", "-c", copied]).returncode == 0
    try:
        setup(rig, f"{place}/bin/python")
        assert not os.path.exists(f"{rig.root}/opt/storewarden")
        unit = Path(f"{rig.root}{UNITS}/{WATCHER}").read_text(encoding="ascii")
        assert f"ExecStart={place}/bin/python -I -m storewarden watch" in unit
        assert_it_removes_debris_and_builds_go_on(rig, "in-place")
    finally:
        gone = f"{python} -m storewarden setup --uninstall; rm -r {place}"
        assert run(rig, ["sh", "-c", gone]).returncode == 0


def test_metrics_are_told_once_they_are_asked_for(rig: Rig, python: str) -> None:
    setup(rig, python)
    [code] = os.listdir(f"{rig.root}/opt/storewarden")
    texts = "/var/lib/storewarden-lab"
    made = f"mkdir {texts} && chgrp storewarden {texts} && chmod g+w {texts}"
    assert run(rig, ["sh", "-c", made]).returncode == 0
    try:
        with open(f"{rig.root}/etc/storewarden/config.toml", "a", encoding="ascii") as file:
            file.write('metrics-listen = "127.0.0.1:9913"\n')
            file.write(f'metrics-textfile = "{texts}/storewarden.prom"\n')
        said = setup_again(rig)
        assert "storewarden-metrics.conf (new)" in said
        assert "storewarden-textfile.conf (new)" in said
        ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9913/metrics').read())"
        served = run(rig, [f"/opt/storewarden/{code}/bin/python", "-I", "-c", ask], "bob")
        assert "storewarden_" in served.stdout, served.stderr + journal(rig)
        written = Path(f"{rig.root}{texts}/storewarden.prom")
        ns.wait_until(written.exists, f"the metrics:\n{journal(rig)}", 60)
        assert "storewarden_" in written.read_text(encoding="ascii")
    finally:
        assert run(rig, ["rm", "-r", texts]).returncode == 0
