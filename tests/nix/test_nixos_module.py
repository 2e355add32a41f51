# SPDX-License-Identifier: MIT
"""On NixOS: the units that are shipped, drop-ins that fit the machine, and refusals that help."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from nix.evaluating import Nix, new_nix, words
from nix.rendered import ENABLED, UNITS, Rendered, render, shipped_with
from storewarden.config import DEFAULT_CONFIG
from storewarden.setup.code import all_shipped
from storewarden.setup.linux import let_in

OWN_STORE = 'fileSystems."/nix/store" = { device = "tank/store"; fsType = "zfs"; };'


def shipped_drop_ins() -> set[str]:
    found = (re.fullmatch(r"systemd/drop-ins/(.+)", name) for name in all_shipped())
    return {match[1] for match in found if match}


def written(one: Rendered) -> dict[str, Any]:
    return tomllib.loads(one.text("storewarden/config.toml"))


def value(nix: Nix, settings: str, attribute: str) -> Any:  # noqa: ANN401 - as of JSON
    configuration = f"{{ {ENABLED} {settings} }}"
    return nix.value(*words(nix, configuration), "-A", f"nixos.{attribute}")


def refusal(nix: Nix, settings: str) -> str:
    return nix.refusal(*words(nix, f"{{ {ENABLED} {settings} }}"), "-A", "nixos")


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_the_one_that_is_shipped(plain: Rendered, unit: str) -> None:
    assert plain.unit(unit) == shipped_with(plain.interpreter(), unit)
    assert plain.interpreter().startswith("/")
    assert plain.interpreter().endswith("/libexec/storewarden/bin/python3")


def test_nixos_adds_nothing_but_triggers(plain: Rendered) -> None:
    [trigger] = plain.lines("storewarden.service.d/overrides.conf")
    assert re.fullmatch(r"X-Reload-Triggers=\S+-storewarden\.toml", trigger)
    assert plain.lines("storewarden-helper.service.d/overrides.conf") == []
    assert plain.lines("storewarden-helper.socket.d/overrides.conf") == []


def test_without_settings_only_reloads_differ(plain: Rendered) -> None:
    name = "storewarden-notify-reload.conf"
    assert plain.drop_ins() == {name: shipped_with("", f"drop-ins/{name}")}


def test_every_drop_in_is_in_force_somewhere_as_it_is_shipped(nix: Nix) -> None:
    told = 'services.storewarden.settings.metrics-listen = "127.0.0.1:9913"; services.storewarden.'
    told += 'settings.metrics-textfile = "/var/lib/prometheus/node-exporter/storewarden.prom";'
    seen = {}
    for access in ("mount", "remount"):
        one = render(nix, f'{OWN_STORE} {told} services.storewarden.storeAccess = "{access}";')
        for name, text in one.drop_ins().items():
            assert text == shipped_with(one.interpreter(), f"drop-ins/{name}")
            seen[name] = text
    # Where a group guards Nix's socket, extraGroups of the user says so on NixOS; the audit log
    # stays where it is there.
    others = {"storewarden-nix-group.conf", "storewarden-helper-audit-log.conf"}
    assert seen.keys() == shipped_drop_ins() - others


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9913", "127.8.9.1:1", "localhost:80", "[::1]:9913", "0.0.0.0:9913"]
)
def test_the_network_is_opened_as_setup_opens_it(nix: Nix, address: str) -> None:
    one = render(nix, f'services.storewarden.settings.metrics-listen = "{address}";')
    expected = shipped_with("", "drop-ins/storewarden-metrics.conf")
    expected = expected.replace("IPAddressAllow=localhost", f"IPAddressAllow={let_in(address)}")
    assert one.drop_ins()["storewarden-metrics.conf"] == expected


def test_the_directory_of_the_text_file_is_writable(nix: Nix) -> None:
    settings = 'services.storewarden.settings.metrics-textfile = "/srv/node.d/storewarden.prom";'
    [line] = re.findall(
        r"^ReadWritePaths=.*$",
        render(nix, settings).drop_ins()["storewarden-textfile.conf"],
        re.MULTILINE,
    )
    assert line == "ReadWritePaths=-/srv/node.d"


def test_a_store_of_its_own_is_remounted_for_the_helper(nix: Nix) -> None:
    assert value(nix, "", "storeAccess") == "bind"
    assert value(nix, OWN_STORE, "storeAccess") == "remount"
    said = refusal(nix, f'{OWN_STORE} services.storewarden.storeAccess = "bind";')
    assert 'services.storewarden.storeAccess is "bind", but fileSystems mounts /nix/store' in said
    by_another_name = 'fileSystems.store = { mountPoint = "/nix/store"; fsType = "zfs"; };'
    assert value(nix, by_another_name, "storeAccess") == "remount"


def test_the_watcher_may_ask_nix_beside_whoever_else_may(nix: Nix) -> None:
    others = 'nix.settings.allowed-users = [ "@wheel" ];'
    assert value(nix, others, "nix") == {
        "allowed-users": ["@wheel"],
        "extra-allowed-users": ["storewarden"],
    }
    assert value(nix, "nix.enable = false;", "nix") == {"extra-allowed-users": []}


def test_nix_lets_both_in(nix: Nix, tmp_path: Path) -> None:
    told = value(nix, 'nix.settings.allowed-users = [ "@wheel" ];', "nix")
    one = new_nix(str(tmp_path), nix.python)
    with open(f"{one.top}/conf/nix.conf", "a", encoding="ascii") as file:
        file.writelines(f"{key} = {' '.join(names)}\n" for key, names in sorted(told.items()))
    # `nix config show` since 2.17.
    answers = (one.run("nix", *verb) for verb in (["config", "show"], ["show-config"]))
    shown = next(done.stdout for done in answers if done.returncode == 0)
    assert "allowed-users = @wheel storewarden\n" in shown


def test_in_a_container_the_units_run_only_where_a_database_is_its_own(nix: Nix) -> None:
    condition = "ConditionPathIsReadWrite=/nix/var/nix/db"
    for inside in (True, False):
        one = render(nix, f"boot.isContainer = {str(inside).lower()};")
        for unit in UNITS[:2]:
            assert (condition in one.lines(f"{unit}.d/overrides.conf")) == inside


@pytest.mark.parametrize("unit", [UNITS[0], UNITS[2]])
def test_less_is_logged_if_that_is_asked_for(nix: Nix, unit: str) -> None:
    one = render(nix, 'services.storewarden.logLevel = "warning";')
    assert "LogLevelMax=warning" in one.lines(f"{unit}.d/overrides.conf")


def test_more_arguments_are_the_helpers(nix: Nix) -> None:
    one = render(nix, 'services.storewarden.extraArgs = [ "--min-age" "60" ];')
    [variable] = one.lines(f"{UNITS[2]}.d/overrides.conf")
    assert variable == 'Environment="STOREWARDEN_HELPER_OPTIONS=--min-age 60"'
    assert "Environment=STOREWARDEN_HELPER_OPTIONS=" in one.lines(UNITS[2])
    refused = refusal(nix, """services.storewarden.extraArgs = [ "--nix /x" ];""")
    assert "services.storewarden.extraArgs" in refused


def test_the_manuals_chapter_speaks_of_options_that_there_are(nix: Nix) -> None:
    chapter = Path(value(nix, "", "doc")).read_text(encoding="utf-8")
    options = nix.value(*words(nix), "-A", "documented.nixos")
    named = set(re.findall(r"services\.storewarden\.[a-zA-Z.-]*[a-zA-Z]", chapter))
    assert named
    assert named <= options.keys()


def test_a_store_that_root_does_not_own_is_refused(nix: Nix) -> None:
    said = refusal(nix, 'nix.daemonUser = "nix";')
    assert "storewarden needs a store that root owns" in said


def test_without_the_systems_nix_the_usual_places_are_asked(nix: Nix) -> None:
    assert "nix" not in written(render(nix, "nix.enable = false;"))


def test_watcher_and_helper_read_the_same_file(nix: Nix) -> None:
    told = (
        'services.storewarden.settings = { nix = "/opt/nix/bin/nix"; build-group = "builders"; };'
    )
    one = render(nix, told)
    [started] = [line for line in one.lines(UNITS[2]) if line.startswith("ExecStart=")]
    assert f" --config {DEFAULT_CONFIG} " in started
    assert 'nix = "/opt/nix/bin/nix"\n' in one.text("storewarden/config.toml")
    assert 'build-group = "builders"\n' in one.text("storewarden/config.toml")


@pytest.mark.parametrize("key", ["audit-log", "runtime-dir", "socket", "state-dir", "store-dir"])
def test_what_the_units_depend_on_cannot_be_set(nix: Nix, key: str) -> None:
    said = refusal(nix, f'services.storewarden.settings.{key} = "/elsewhere";')
    assert f"services.storewarden.settings.{key} cannot be set" in said


def test_the_hook_is_the_packages_where_it_is_asked_for(nix: Nix) -> None:
    asked = "services.storewarden.prevent = true;"
    assert "pre-build-hook" not in str(value(nix, "", "nix"))
    found = value(nix, asked, "nix.pre-build-hook")
    assert str(found).endswith("/libexec/storewarden/pre-build-hook")
    said = refusal(nix, f"{asked} nix.enable = false;")
    assert "pre-build-hook where your Nix reads its settings" in said


def test_the_watchers_user_stays_the_same(nix: Nix) -> None:
    assert value(nix, "", "users") == {
        "groups": {"storewarden": {}},
        "users": {
            "storewarden": {
                "description": "Watches the Nix store",
                "extraGroups": [],
                "group": "storewarden",
                "isSystemUser": True,
            }
        },
    }


def test_units_are_wanted_by_what_their_install_sections_say(nix: Nix) -> None:
    services = value(nix, "", "systemd.services.storewarden.wantedBy")
    sockets = value(nix, "", "systemd.sockets.storewarden-helper.wantedBy")
    for unit, targets in ((UNITS[0], services), (UNITS[1], sockets)):
        assert isinstance(targets, list)
        assert f"WantedBy={' '.join(targets)}\n" in shipped_with("", unit)
