# SPDX-License-Identifier: MIT
"""What a real Mac puts in the way of `storewarden setup`, which has to manage all the same."""

import os

import pytest

from mac import installed as service
from mac.installed import HELPER, WATCHER
from mac.machine import Mac, opened
from mac.root import HOME, OWN_CHECKOUT, PROFILE, UID, Root
from mac.test_story import removed
from real import namespace as ns
from real.builds import stranded
from real.rig import answers
from storewarden.host.darwin import SOCKET
from storewarden.setup.darwin import LOCK


def test_whoever_is_in_group_daemon_can_exchange_neither_socket_nor_lock(installed: Mac) -> None:
    assert os.stat(installed.outside("/var/run")).st_mode & 0o777 == 0o775
    place = os.path.dirname(SOCKET)
    while place != "/":
        state = os.stat(installed.outside(place))
        assert (state.st_uid, state.st_mode & 0o022) == (0, 0), place
        place = os.path.dirname(place)
    assert os.listdir(installed.outside("/var/run")) == []


def test_what_members_of_admin_may_write_to_is_no_reason_to_refuse(mac: Mac) -> None:
    for place in ("/Library", "/nix"):
        done = mac.run("sh", "-c", f"chgrp admin {place}; chmod 0775 {place}", user="root")
        assert done.returncode == 0, done.stderr
    service.set_up(mac)
    removed(mac, stranded(mac.rig, "interrupted"))
    done = mac.warden("setup", "--uninstall", user="root")
    assert done.returncode == 0, done.stderr


def have_launchctl(mac: Mac, end: str) -> None:
    """Have it end otherwise, once it has launchd's answer: `status`, `out` and `err`."""
    place = mac.outside("/bin/launchctl")
    answer = ns.read(place).partition("sys.stdout.write(out)")[0]
    with open(place, "w", encoding="utf-8") as file:
        file.write(f"{answer}{end}\nsys.exit(status)\n")


def test_whether_a_job_is_there_is_told_by_launchctls_status_not_by_what_it_prints(
    mac: Mac,
) -> None:
    have_launchctl(mac, "sys.stdout.write(err)")
    service.set_up(mac)
    assert "nothing to change" in service.set_up(mac).stdout
    assert "kickstart -k system/org.nixos.nix-daemon" in service.set_up(mac, "--prevent").stdout
    done = mac.warden("setup", "--uninstall", user="root")
    assert done.returncode == 0, done.stderr
    assert mac.run("launchctl", "print", WATCHER).returncode == 113


def test_where_launchctl_does_not_tell_whether_a_job_is_there_nothing_is_begun(mac: Mac) -> None:
    have_launchctl(mac, "status = 1")
    before = service.files(mac)
    done = mac.warden("setup", user="root")
    assert done.returncode == 3
    assert f"launchctl print {HELPER}` failed (1)" in " ".join(done.stderr.split())
    left = service.files(mac).keys() - before.keys()
    assert left == {LOCK, os.path.dirname(LOCK)}


@pytest.mark.slow
def test_launchd_may_take_its_time_to_start_the_jobs(mac: Mac) -> None:
    mac.set("spawn", 4)
    assert "the watcher runs, and its user reaches the helper" in service.set_up(mac).stdout


@pytest.mark.slow
def test_a_watcher_that_does_not_come_up_is_not_said_to_run(mac: Mac) -> None:
    # The shell that opens its log fails then, as often as it is started.
    os.makedirs(mac.outside(f"{HOME}/Library/Logs/storewarden.log"))
    done = mac.warden("setup", user="root", seconds=120)
    assert done.returncode != 0
    assert "the watcher runs" not in done.stdout
    assert "the watcher: it does not run" in done.stderr


@pytest.mark.slow
def test_an_upgrade_waits_until_launchd_has_let_the_old_jobs_go(installed: Mac) -> None:
    service.works(installed)
    installed.set("leave", 3)
    before = service.pid(installed, HELPER)
    with open(installed.outside(f"{OWN_CHECKOUT}/src/storewarden/errors.py"), "a") as file:
        file.write('\nNEW = "newer"\n')
    service.set_up(installed)
    assert service.pid(installed, HELPER) not in {None, before}
    assert "state = running" in str(service.job(installed, WATCHER))


def test_nobody_has_to_be_logged_in_at_the_screen(new_disk: Root) -> None:
    with opened(new_disk) as mac:
        assert mac.run("launchctl", "print", "gui/501").returncode == 125
        service.set_up(mac)
        removed(mac, stranded(mac.rig, "interrupted"))
        # As that person all the same.
        watcher = service.pid(mac, WATCHER)
        assert {one.uid for one in ns.processes(mac.namespace) if one.pid == watcher} == {UID}
        mac.run("launchctl", "standin-login", "501", user="root")
        assert service.pid(mac, WATCHER) == watcher


def test_whoever_may_not_set_it_up_is_shown_what_would_be_done(mac: Mac) -> None:
    done = mac.warden("setup", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "launchctl bootstrap system /Library/LaunchDaemons" in done.stdout
    assert "none of them is taken" in done.stdout


def with_an_interpreter_of_the_persons_own(mac: Mac) -> str:
    """Have the checkout run by a copy, which is none that a service may run; gives its name."""
    own = f"{HOME}/python"
    version = os.path.basename(os.readlink(mac.outside(f"{OWN_CHECKOUT}/.venv/bin/python")))
    script = f"""
cp -R {PROFILE}/ {own}
ln -sf {own}/bin/{version} {OWN_CHECKOUT}/.venv/bin/python
printf 'home = {own}/bin\\ninclude-system-site-packages = false\\n' >{OWN_CHECKOUT}/.venv/pyvenv.cfg
"""
    assert mac.run("sh", "-ec", script).returncode == 0
    return version


def test_apples_stub_of_a_python_is_never_run(mac: Mac) -> None:
    with_an_interpreter_of_the_persons_own(mac)
    service.set_up(mac)
    [copy] = os.listdir(mac.outside("/opt/storewarden"))
    python = os.readlink(mac.outside(f"/opt/storewarden/{copy}/bin/python"))
    assert python.startswith("/nix/store/")
    mac.warden("doctor")
    assert not os.path.exists(mac.outside("/var/db/standin/stubs-run"))


@pytest.mark.parametrize("profile", ["storewarden", "per-user/root/profile"])
def test_an_interpreter_is_found_where_setup_says_and_where_determinate_puts_roots_own(
    mac: Mac, profile: str
) -> None:
    version = with_an_interpreter_of_the_persons_own(mac)
    profiles = os.path.dirname(PROFILE)
    script = f"""
cd {profiles}
mkdir -p per-user/root
readlink -f default
cp -R default/ no-python
rm no-python/bin/python*
ln -sfn no-python default
"""
    done = mac.run("sh", "-ec", script, user="root")
    assert done.returncode == 0, done.stderr
    refused = mac.warden("setup", user="root")
    assert refused.returncode == 3
    advice = f"profile install --profile {profiles}/storewarden nixpkgs#python3"
    assert advice in " ".join(refused.stderr.split())
    path = done.stdout.strip()
    assert mac.run("ln", "-s", path, f"{profiles}/{profile}", user="root").returncode == 0
    service.set_up(mac)
    [copy] = os.listdir(mac.outside("/opt/storewarden"))
    python = os.readlink(mac.outside(f"/opt/storewarden/{copy}/bin/python"))
    assert python == f"{path}/bin/{version}"


def test_the_volume_of_nix_comes_after_the_jobs_that_wait_for_it(set_up_disk: Root) -> None:
    with opened(set_up_disk, UID, volume_after=2) as late:
        assert service.job(late, HELPER) is not None
        assert not answers(late.outside(SOCKET))
        service.works(late)
        removed(late, stranded(late.rig, "interrupted"))


def test_a_changed_configuration_is_read_by_the_command_that_its_head_says(installed: Mac) -> None:
    service.works(installed)
    place = installed.outside("/etc/storewarden/config.toml")
    text = ns.read(place)
    [line] = [one for one in text.splitlines() if "launchctl" in one]
    with open(place, "a", encoding="utf-8") as file:
        file.write('mode = "report"\n')
    before = service.pid(installed, WATCHER)
    done = installed.run("sh", "-c", line.lstrip("# "))
    assert done.returncode == 0, done.stderr
    ns.wait_until(lambda: service.status(installed)["mode"] == "report", "the change")
    assert service.pid(installed, WATCHER) == before
