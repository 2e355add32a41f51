# SPDX-License-Identifier: MIT
"""`storewarden doctor` in containers without systemd, in bubblewrap, and under gVisor."""

import json
import os
import subprocess
import sys

import pytest

from programs import need
from real import namespace as ns
from real.container import container
from real.doctoring import visit_of, visited
from real.rig import Rig, missing
from real.test_bubblewrap import ALONE, SOCKET, STATE, inside
from real.test_bubblewrap import missing as no_bubblewrap
from real.test_gvisor import RUNSC
from real.test_gvisor import missing as no_gvisor
from real.watching import service


@pytest.fixture(autouse=True, scope="module")
def needs() -> None:
    need("real Nix", missing())


def test_in_a_container_with_a_service_nothing_is_wrong() -> None:
    with container() as rig, service(rig):
        visit = visited(rig)
        assert (visit.code, visit.of("problem"), visit.of("unknown")) == (0, set(), set())
        assert "runs as root, and needs no helper" in visit.said("helper")
        assert "overlay, mounted at /" in visit.said("store")


def test_in_a_container_without_one_it_is_told_how_to_run_it_there() -> None:
    with container() as rig:
        visit = visited(rig)
        assert (visit.code, visit.of("problem")) == (5, {"content-addressed"})
        assert "storewarden watch" in visit.said("content-addressed")
        assert "systemctl" not in json.dumps(visit.found)


def test_homeless_shelter_is_found() -> None:
    with container() as rig:
        assert ns.run(rig.namespace, ["mkdir", "/homeless-shelter"]).returncode == 0
        visit = visited(rig, user="nobody")
        assert visit.severity("homeless-shelter") == "problem"
        assert "rm -r /homeless-shelter" in visit.said("homeless-shelter")


def test_where_root_builds_alone_it_is_said_what_that_means() -> None:
    with container(builds="alone") as rig:
        visit = visited(rig)
        assert "There is no nix-daemon" in visit.said("daemon")
        assert "There are no build users" in visit.said("build-users")
        assert visit.severity("daemon") == visit.severity("build-users") == "note"


def test_without_a_daemon_the_real_root_makes_no_store() -> None:
    with container(builds="root") as rig:
        assert ns.run(rig.namespace, ["rm", "-r", "/nix/var", "/nix/store"]).returncode == 0
        visit = visited(rig)
        assert (visit.code, visit.severity("store")) == (3, "problem")
        assert os.listdir(rig.outside("/nix/")) == []


def test_a_sandbox_that_cannot_be_made_is_not_taken_for_one() -> None:
    with container() as rig:
        with open(f"{rig.base}/image/etc/nix/nix.conf", encoding="ascii") as file:
            text = file.read().replace("sandbox = false", "sandbox = true")
        make = ["sh", "-c", 'printf "%s" "$0" >/etc/nix/nix.conf', text]
        assert ns.run(rig.namespace, make).returncode == 0
        assert visited(rig).severity("sandbox") == "ok"
        # Root of a container without that capability, on a kernel without user namespaces.
        hidden = "mount -t tmpfs none /proc/sys/user; echo 0 >/proc/sys/user/max_user_namespaces"
        unable = f'{hidden}; exec setpriv --bounding-set=-sys_admin "$@"'
        visit = visited(rig, through=["unshare", "--mount", "sh", "-ec", unable, "sh"])
        assert visit.severity("sandbox") == "problem"
        assert "sandbox-fallback" in visit.said("sandbox")


@pytest.mark.parametrize("seen", [SOCKET, STATE], ids=["the socket", "the state directory"])
def test_in_bubblewrap_what_is_outside_is_unknown_and_nothing_is_called_well(
    rig: Rig, seen: tuple[str, ...]
) -> None:
    need("bubblewrap", no_bubblewrap())
    done = inside(rig, (*seen, *ALONE), "doctor", "--json")
    visit = visit_of(done)
    assert (visit.code, visit.of("problem")) == (0, set())
    assert {"daemon", "service", "audit-log"} <= visit.of("unknown")
    assert "runs outside of this container or sandbox" in visit.said("daemon")
    assert visit.severity("store") == "note"
    assert not {"sandbox", "content-addressed", "build-users"} & visit.found.keys()


def test_in_bubblewrap_without_the_socket_nix_cannot_be_asked(rig: Rig) -> None:
    need("bubblewrap", no_bubblewrap())
    visit = visit_of(inside(rig, ALONE, "doctor", "--json"))
    assert visit.code == 3


def test_under_gvisor_the_terminal_of_builders_is_known_to_fail() -> None:
    need("gVisor", no_gvisor())
    script = 'mount -t tmpfs none /nix && nix-store --init && exec "$@"'
    words = [sys.executable, "-m", "storewarden", "doctor", "--json"]
    done = subprocess.run(
        [*RUNSC, "sh", "-ec", script, "sh", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    visit = visit_of(done)
    assert (visit.code, visit.severity("terminal-error")) == (5, "problem"), done.stderr
