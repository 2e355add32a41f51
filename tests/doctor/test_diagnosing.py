# SPDX-License-Identifier: MIT
"""What facts mean, of Nix and of how it builds; also on macOS, which no test runs on."""

from dataclasses import replace

import pytest

from storewarden.doctor.diagnosing import blind, diagnose
from storewarden.doctor.diagnosis import Severity
from storewarden.doctor.facts import (
    Accounts,
    Daemon,
    Database,
    Facts,
    Kernel,
    Listening,
    Settings,
    Unknown,
)
from storewarden.doctor.versions import Flavour, NixVersion
from storewarden.store.fact import Fact, Known
from well import NOW, SETTINGS, STATUS, WELL, named, severities, with_settings

OK, NOTE, UNKNOWN, PROBLEM = Severity.OK, Severity.NOTE, Severity.UNKNOWN, Severity.PROBLEM
MAC = replace(WELL, kernel=Kernel(darwin=True))
IDLE = replace(WELL.service, running=False, said=None, installed=False)
STRANDING = replace(SETTINGS, sandbox="false", features=frozenset({"ca-derivations"}))


def commands(facts: Facts) -> list[str]:
    """All that is advised to be run."""
    return [step.command for one in diagnose(facts) for step in one.steps]


def test_of_a_machine_that_is_well_there_is_nothing_but_that() -> None:
    assert {one.severity for one in diagnose(WELL)} == {OK}
    assert not blind(WELL)


def test_the_worst_comes_first() -> None:
    found = [one.severity for one in diagnose(with_settings(WELL, STRANDING))]
    assert found == sorted(found, key=list(Severity).index)


def set_to(sandbox: str | None, **more: bool) -> Settings:
    return replace(Settings(sandbox=sandbox, features=frozenset()), **more)  # type: ignore[arg-type]


FALLS, FAILS = {"sandbox_fallback": True}, {"sandbox_fallback": False}


@pytest.mark.parametrize(
    ("settings", "namespaces", "severity"),
    [
        (set_to("true", **FALLS), Known.YES, OK),
        (set_to("true", **FAILS), Known.UNKNOWN, OK),
        (set_to("true", **FALLS), Known.UNKNOWN, UNKNOWN),
        (set_to("true"), Known.UNKNOWN, UNKNOWN),
        (set_to("true", **FALLS), Known.NO, PROBLEM),
        (set_to("true", **FAILS), Known.NO, PROBLEM),
        (set_to("relaxed", **FALLS), Known.YES, NOTE),
        (set_to("relaxed", **FALLS), Known.NO, PROBLEM),
        (set_to("false", **FALLS), Known.YES, NOTE),
        (set_to(None), Known.YES, UNKNOWN),
    ],
)
def test_a_sandbox_is_what_can_be_made_and_not_what_is_set(
    settings: Settings, namespaces: Known, severity: Severity
) -> None:
    kernel = Kernel(darwin=False, namespaces=namespaces)
    facts = replace(with_settings(WELL, settings), kernel=kernel)
    assert named(facts, "sandbox").severity is severity


@pytest.mark.parametrize("sandbox", ["true", "false", "relaxed"])
def test_on_macos_no_setting_keeps_outputs_out_of_the_store(sandbox: str) -> None:
    found = named(with_settings(MAC, replace(STRANDING, sandbox=sandbox)), "sandbox")
    assert found.severity is NOTE
    assert "on macOS builds write their outputs into the store either way" in found.title
    facts = replace(with_settings(MAC, replace(STRANDING, sandbox=sandbox)), service=IDLE)
    assert named(facts, "content-addressed").severity is PROBLEM


def test_what_strands_is_a_problem_unless_a_service_removes_it() -> None:
    facts = with_settings(WELL, STRANDING)
    assert named(facts, "content-addressed").severity is NOTE
    for service in (
        IDLE,
        replace(WELL.service, said=replace(STATUS, mode="report")),
        replace(WELL.service, said=replace(STATUS, problems={"nix": "it is silent"})),
        replace(WELL.service, running=Unknown("it may not be asked")),
    ):
        found = named(replace(facts, service=service), "content-addressed")
        assert found.severity is PROBLEM
        assert "NixOS/nix#13703" in found.issues


def test_with_a_sandbox_or_in_lix_nothing_is_stranded() -> None:
    sandboxed = replace(STRANDING, sandbox="true")
    assert named(with_settings(WELL, sandboxed), "content-addressed").severity is OK
    lix = NixVersion(Flavour.LIX, (2, 95, 0), "2.95.0")
    facts = with_settings(WELL, STRANDING)
    facts = replace(facts, nix=replace(facts.nix, version=lix, daemon_version=lix), service=IDLE)
    assert named(facts, "content-addressed").severity is OK


def test_recorded_outputs_tell_of_builds_with_the_feature_on() -> None:
    assert named(WELL, "content-addressed").severity is OK
    facts = replace(WELL, database=Database(realisations=3))
    assert named(facts, "content-addressed").severity is NOTE


def test_settings_that_are_not_told_leave_nothing_well() -> None:
    facts = replace(WELL, nix=replace(WELL.nix, settings=Unknown("it failed")))
    assert named(facts, "settings").severity is UNKNOWN
    assert not {"sandbox", "content-addressed", "build-users"} & severities(facts, OK)
    for name in ("sandbox", "content-addressed", "build-users"):
        assert named(with_settings(WELL, Settings()), name).severity is UNKNOWN


def test_settings_that_this_user_may_not_read_are_for_root_to_tell() -> None:
    place = "/etc/nix/nix.conf"
    unread = replace(WELL.nix, settings=Unknown(f"this user may not read {place}"), hidden=place)
    found = named(replace(WELL, nix=unread, uid=1000), "settings")
    assert (found.severity, found.title) == (UNKNOWN, f"This user may not read {place}")
    assert [step.command for step in found.steps] == ["sudo storewarden doctor"]
    assert not named(replace(WELL, nix=unread, uid=0), "settings").steps
    assert not {"sandbox", "content-addressed", "build-users"} & severities(
        replace(WELL, nix=unread), OK
    )


def test_a_daemon_outside_leaves_its_settings_and_users_untold() -> None:
    facts = replace(with_settings(WELL, STRANDING), daemon=Daemon(0, None, None))
    names = {one.name for one in diagnose(facts)}
    assert not {"sandbox", "content-addressed", "build-users", "homeless-shelter"} & names
    assert named(facts, "daemon").severity is UNKNOWN
    assert named(replace(facts, state=Known.NO, daemon=None), "daemon").severity is PROBLEM


def test_a_daemon_of_another_version_counts() -> None:
    old = NixVersion(Flavour.NIX, (2, 33, 0), "2.33.0")
    facts = replace(WELL, nix=replace(WELL.nix, daemon_version=old))
    assert named(facts, "nix").severity is NOTE
    assert named(facts, "orphaned-builders").title.startswith("Nix 2.33.0: ")
    untold = replace(WELL, nix=replace(WELL.nix, daemon_version=Unknown("it does not tell")))
    assert "it does not tell" in named(untold, "nix").title


def test_under_gvisor_an_old_nix_is_a_problem() -> None:
    old = NixVersion(Flavour.NIX, (2, 32, 1), "2.32.1")
    facts = replace(WELL, nix=replace(WELL.nix, version=old, daemon_version=old))
    assert "terminal-error" not in severities(facts, PROBLEM)
    facts = replace(facts, kernel=replace(WELL.kernel, emulated=True))
    assert named(facts, "terminal-error").severity is PROBLEM


def test_of_a_newer_nix_nothing_is_claimed() -> None:
    new = NixVersion(Flavour.NIX, (2, 40, 0), "2.40.0")
    facts = replace(WELL, nix=replace(WELL.nix, version=new, daemon_version=new))
    assert named(facts, "versions").severity is UNKNOWN


def test_a_configuration_that_is_newer_than_the_daemon_is_not_believed() -> None:
    facts = replace(WELL, nix=replace(WELL.nix, changed=NOW))
    assert named(facts, "settings").severity is UNKNOWN
    assert "settings" not in severities(replace(facts, daemon=None), UNKNOWN)


@pytest.mark.parametrize(
    "facts",
    [
        replace(WELL, daemon=Unknown("permission denied")),
        replace(WELL, nix=replace(WELL.nix, answers=Fact(Known.NO, "it hangs"))),
        replace(WELL, nix=replace(WELL.nix, version=Unknown("no such file or directory"))),
        replace(WELL, store=Known.NO),
        replace(WELL, store=Known.UNKNOWN),
        replace(WELL, database=Database(broken="it is no database")),
    ],
)
def test_where_nix_or_the_store_cannot_be_asked_that_is_a_problem_and_little_else(
    facts: object,
) -> None:
    assert isinstance(facts, type(WELL))
    assert blind(facts)
    assert severities(facts, PROBLEM)


BROKEN = Unknown("nix: error: illegal configuration line 'x' in '/etc/nix/nix.conf'")


@pytest.mark.parametrize("misconfigured", [True, False])
def test_a_daemon_is_not_restarted_because_the_program_fails(*, misconfigured: bool) -> None:
    silent = Fact(Known.NO, BROKEN.reason)
    nix = replace(WELL.nix, version=BROKEN, answers=silent, misconfigured=misconfigured)
    facts = replace(WELL, nix=nix)
    assert named(facts, "daemon").severity is UNKNOWN
    assert BROKEN.reason in named(facts, "nix").title
    assert "restart" not in str([one.steps for one in diagnose(facts)])
    assert ("install nix" in str(named(facts, "nix").steps).lower()) != misconfigured
    assert blind(facts)


def test_setup_is_advised_only_where_it_can_work() -> None:
    facts = replace(WELL, helper=Listening.NOTHING)
    for service in (WELL.service, replace(WELL.service, running=False)):
        broken = replace(facts, service=service)
        assert "sudo storewarden setup" in commands(broken)
        bare = commands(replace(broken, kernel=replace(WELL.kernel, systemd=False)))
        assert "storewarden watch" in bare
        assert "sudo storewarden setup" not in bare


@pytest.mark.parametrize("system", ["NixOS", "nix-darwin"])
def test_on_a_declared_machine_all_is_to_be_declared(system: str) -> None:
    kernel = replace(WELL.kernel, declared=system)
    facts = replace(with_settings(WELL, replace(STRANDING, build_group="others")), kernel=kernel)
    for service in (IDLE, replace(IDLE, installed=True), replace(WELL.service, running=False)):
        one = replace(facts, service=service, helper=Listening.NOTHING)
        assert not [told for told in commands(one) if "setup" in told or "systemctl edit" in told]
        steps = " ".join(step.words for found in diagnose(one) for step in found.steps)
        assert f"In the configuration of {system}: services.storewarden." in steps
        assert f"Set sandbox = true in nix.settings of {system}" in steps
        assert "nix.conf" not in steps


@pytest.mark.parametrize(
    ("system", "place"),
    [
        ("", "/etc/nix/nix.custom.conf"),
        ("NixOS", "nix.settings of NixOS"),
        ("nix-darwin", "customSettings of Determinate's module for nix-darwin"),
    ],
)
def test_what_determinate_would_overwrite_is_not_where_a_setting_belongs(
    system: str, place: str
) -> None:
    ours = NixVersion(Flavour.DETERMINATE, (2, 34, 6), "3.20.0 (Nix 2.34.6)")
    facts = with_settings(WELL, STRANDING)
    nix = replace(facts.nix, version=ours, daemon_version=ours)
    facts = replace(facts, nix=nix, kernel=replace(facts.kernel, declared=system))
    assert f"Set sandbox = true in {place}, if" in str(named(facts, "sandbox").steps)


def test_no_name_stands_twice_however_bad_it_is() -> None:
    old = NixVersion(Flavour.NIX, (2, 8, 0), "2.8.0")
    accounts = Accounts(
        "nixbld",
        exists=True,
        members=(("_nixbld1", 301),),
        shared=(("_nixbld1", "_modelmanagerd"),),
        logins=("_nixbld1",),
    )
    for kernel in (Kernel(darwin=True), Kernel(darwin=False, emulated=True)):
        facts = with_settings(WELL, replace(STRANDING, build_group="others"))
        facts = replace(facts, kernel=kernel, accounts=accounts, service=IDLE)
        nix = replace(facts.nix, version=old, daemon_version=old, changed=NOW)
        names = [one.name for one in diagnose(replace(facts, nix=nix))]
        assert sorted(set(names)) == sorted(names)
        assert {"uid-clash", "logins", "build-group"} <= set(names)


def test_no_command_for_linux_is_given_on_macos() -> None:
    facts = replace(with_settings(MAC, STRANDING), service=IDLE, nix=replace(WELL.nix, changed=NOW))
    assert "systemctl" not in " ".join(commands(facts))
    assert any("launchctl" in command for command in commands(facts))
