# SPDX-License-Identifier: MIT
"""`storewarden doctor` on a machine with systemd: set up, and broken since."""

from lab.machine import control
from lab.service import HELPER, SOCKET, WATCHER, journal, run, setup
from real import namespace as ns
from real.doctoring import Visit, visit_of
from real.rig import Rig
from storewarden.nix_queries import parse_version

LOG = "/var/log/storewarden/audit.jsonl"


def doctor(rig: Rig, user: str = "root") -> Visit:
    """What the installed command finds."""
    return visit_of(run(rig, ["storewarden", "doctor", "--json"], user))


def test_before_it_is_set_up_the_doctor_says_to_do_it(rig: Rig, python: str) -> None:
    visit = visit_of(run(rig, [python, "-m", "storewarden", "doctor", "--json"], rig.user))
    assert (visit.code, visit.of("problem")) == (5, {"content-addressed"})
    assert f"sudo {python} -m storewarden setup" in visit.said("content-addressed")


def test_once_it_is_set_up_the_doctor_finds_nothing_wrong(rig: Rig, python: str) -> None:
    setup(rig, python)
    ns.wait_until(lambda: doctor(rig).severity("service") == "ok", journal(rig))
    control(rig, "stop", HELPER)
    for user in ("root", rig.user):
        visit = doctor(rig, user)
        assert (visit.code, visit.of("problem")) == (0, set())
        assert visit.severity("helper") == "ok"
    state = control(rig, "show", "--property=ActiveState", HELPER)
    assert state == "ActiveState=inactive\n", "to look for the helper has started it"


def test_the_doctor_knows_the_version_and_its_bugs(rig: Rig, python: str) -> None:
    visit = visit_of(run(rig, [python, "-m", "storewarden", "doctor", "--json"]))
    printed = ns.run(rig.namespace, ["nix", "--version"]).stdout
    version = parse_version(printed)
    assert version is not None
    assert visit.found["nix"]["title"].startswith(version.name)
    assert ("orphaned-builders" in visit.found) == (version.number < (2, 34, 0))
    assert ("redundant-copies" in visit.found) == (version.number < (2, 32, 0))
    assert "temporary-names" in visit.found


def test_a_doctor_who_may_not_ask_nix_says_so(rig: Rig, python: str) -> None:
    setup(rig, python)
    visit = doctor(rig, "bob")
    assert (visit.code, visit.severity("daemon")) == (3, "problem")
    assert "permission denied" in visit.said("daemon")


def test_the_doctor_misses_a_service_and_a_helper_that_are_stopped(rig: Rig, python: str) -> None:
    setup(rig, python)
    control(rig, "stop", WATCHER)
    visit = doctor(rig, rig.user)
    assert (visit.code, visit.severity("service")) == (5, "problem")
    control(rig, "start", WATCHER)
    ns.wait_until(lambda: doctor(rig).severity("service") == "ok", journal(rig))
    control(rig, "stop", SOCKET, HELPER)
    visit = doctor(rig, rig.user)
    assert (visit.code, visit.severity("helper")) == (5, "problem")
    assert visit.severity("content-addressed") == "problem"


def test_the_doctor_finds_a_damaged_audit_log_and_what_is_advised_mends_it(
    rig: Rig, python: str
) -> None:
    setup(rig, python)
    ns.wait_until(lambda: doctor(rig).severity("service") == "ok", journal(rig))
    damaged = f"echo rubbish >>{LOG}; echo more >>{LOG}"
    assert ns.run(rig.namespace, ["sh", "-c", damaged]).returncode == 0
    visit = doctor(rig)
    assert (visit.code, visit.severity("audit-log")) == (5, "problem")
    assert doctor(rig, rig.user).severity("audit-log") == "unknown"
    command = visit.found["audit-log"]["steps"][-1]["command"].removeprefix("sudo ")
    assert run(rig, ["sh", "-c", command]).returncode == 0
    try:
        assert run(rig, ["storewarden", "scan", "--yes"]).returncode == 0
        assert doctor(rig).severity("audit-log") == "ok"
    finally:
        assert run(rig, ["rm", "-r", "/var/log/storewarden.damaged"]).returncode == 0
