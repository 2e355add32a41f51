# SPDX-License-Identifier: MIT
"""Which units and drop-ins a machine gets."""

from pathlib import Path

import pytest

from storewarden.setup.files import SetupError
from storewarden.setup.linux import (
    HELPER,
    UNITS,
    WATCHER,
    Machine,
    Mounted,
    _places,
    let_in,
    mounted,
    units,
)

PYTHON = "/opt/storewarden/0.1.0-abc/bin/python"
ROOT = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw"


def mount(device: str, root: str, point: str) -> str:
    return f"30 22 {device} {root} {point} rw,relatime shared:1 - ext4 /dev/vda rw"


TABLES = {
    "nothing is mounted": ((), Mounted.PLAIN),
    "an odd name": (("90 22 0:7 / /mnt/a\rb\u2028c rw - tmpfs none rw",), Mounted.PLAIN),
    "over itself": ((mount("254:0", "/nix/store", "/nix/store"),), Mounted.PLAIN),
    "another device": ((mount("254:1", "/", "/nix/store"),), Mounted.OWN),
    "another directory": ((mount("254:0", "/srv/store", "/nix/store"),), Mounted.OWN),
    "all of nix": ((mount("254:1", "/", "/nix"),), Mounted.PLAIN),
    "nix from elsewhere": ((mount("254:0", "/var/nix", "/nix"),), Mounted.PLAIN),
    "nix, and the store over itself": (
        (mount("254:1", "/", "/nix"), mount("254:1", "/store", "/nix/store")),
        Mounted.PLAIN,
    ),
    "nix from elsewhere, and the store over itself": (
        (mount("254:0", "/var/nix", "/nix"), mount("254:0", "/var/nix/store", "/nix/store")),
        Mounted.PLAIN,
    ),
    "nix, and another store": (
        (mount("254:1", "/", "/nix"), mount("254:2", "/", "/nix/store")),
        Mounted.OWN,
    ),
    "over itself, then another": (
        (mount("254:0", "/nix/store", "/nix/store"), mount("254:2", "/", "/nix/store")),
        Mounted.OWN,
    ),
    "a container's root": (
        (
            "22 1 254:0 /lab/root / rw - ext4 /dev/vda rw",
            mount("254:0", "/lab/root/nix/store", "/nix/store"),
        ),
        Mounted.PLAIN,
    ),
}


@pytest.mark.parametrize(("lines", "how"), TABLES.values(), ids=TABLES.keys())
def test_how_the_store_is_mounted_is_told_from_the_table(
    lines: tuple[str, ...], how: Mounted
) -> None:
    table = "\n".join([ROOT, *lines, ""])
    assert mounted(table, read_only=False) is how
    read_only = Mounted.OWN_READ_ONLY if how is Mounted.OWN else how
    assert mounted(table, read_only=True) is read_only


def texts(machine: Machine) -> dict[str, str]:
    return {file.path: file.content.decode() for file in units(PYTHON, machine)}


def drop_ins(machine: Machine) -> set[str]:
    return {path.removeprefix(f"{UNITS}/") for path in texts(machine) if ".d/storewarden-" in path}


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (Machine(), set()),
        (Machine(systemd=252), set()),
        (Machine(systemd=253), {f"{WATCHER}.d/storewarden-notify-reload.conf"}),
        (Machine(nix_group="nix-users"), {f"{WATCHER}.d/storewarden-nix-group.conf"}),
        (Machine(metrics="any"), {f"{WATCHER}.d/storewarden-metrics.conf"}),
        (Machine(textfile="/srv/text"), {f"{WATCHER}.d/storewarden-textfile.conf"}),
        (
            Machine(audit_logs="/srv/audit"),
            {f"{HELPER}.d/storewarden-helper-audit-log.conf"},
        ),
        (Machine(store=Mounted.OWN), {f"{HELPER}.d/storewarden-helper-store-mount.conf"}),
        (
            Machine(store=Mounted.OWN_READ_ONLY),
            {f"{HELPER}.d/storewarden-helper-store-remount.conf"},
        ),
    ],
)
def test_a_machine_gets_the_drop_ins_that_it_needs(machine: Machine, expected: set[str]) -> None:
    assert drop_ins(machine) == expected


def test_every_command_line_has_the_interpreter_that_was_chosen() -> None:
    told = texts(Machine(store=Mounted.OWN_READ_ONLY))
    started = [
        line for text in told.values() for line in text.splitlines() if "storewarden " in line
    ]
    assert len([line for line in started if line.startswith("ExecStart=")]) == 3
    assert all(PYTHON in line for line in started if line.startswith("ExecStart="))
    assert not any("/usr/bin/python3" in text for text in told.values())


def test_the_group_of_this_machine_stands_in_the_drop_in() -> None:
    told = texts(Machine(nix_group="builders"))
    assert (
        "SupplementaryGroups=builders\n" in told[f"{UNITS}/{WATCHER}.d/storewarden-nix-group.conf"]
    )


@pytest.mark.parametrize("python", ["/opt/a b/python", "/opt/$x/python", "/opt/%n/python", "/o\n"])
def test_a_path_that_a_unit_would_read_as_something_else_is_refused(python: str) -> None:
    with pytest.raises(SetupError, match="is not a path that can stand"):
        units(python, Machine())


def test_the_directory_of_the_metrics_stands_in_the_drop_in() -> None:
    told = texts(Machine(textfile="/srv/text"))
    assert "ReadWritePaths=-/srv/text\n" in told[f"{UNITS}/{WATCHER}.d/storewarden-textfile.conf"]
    with pytest.raises(SetupError, match="is not a path that can stand"):
        units(PYTHON, Machine(textfile="/srv/my text"))


def test_the_directory_of_the_audit_log_stands_in_the_drop_in() -> None:
    told = texts(Machine(audit_logs="/srv/audit"))
    drop_in = told[f"{UNITS}/{HELPER}.d/storewarden-helper-audit-log.conf"]
    assert "ReadWritePaths=-/srv/audit\n" in drop_in
    with pytest.raises(SetupError, match="is not a path that can stand"):
        units(PYTHON, Machine(audit_logs="/srv/my audit"))


@pytest.mark.parametrize(
    ("text", "places"),
    [
        (None, ("", "", "/var/log/storewarden")),
        ("", ("", "", "/var/log/storewarden")),
        (
            'metrics-listen = "0.0.0.0:1"\nmetrics-textfile = "/a/b"\naudit-log = "/c/d"\n',
            ("any", "/a", "/c"),
        ),
    ],
)
def test_what_the_units_must_allow_is_read_from_the_configuration(
    text: str | None, places: tuple[str, str, str], tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    if text is not None:
        config.write_text(text)
    assert _places(str(config)) == places


def test_a_wrong_configuration_is_to_be_corrected_first(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('mood = "report"\n')
    with pytest.raises(SetupError, match=r"unknown key 'mood'.*; correct it first"):
        _places(f"{tmp_path}/config.toml")


@pytest.mark.parametrize(
    ("address", "who"),
    [
        ("", ""),
        ("127.0.0.1:9913", "localhost"),
        ("127.1.2.3:9913", "localhost"),
        ("[::1]:9913", "localhost"),
        ("localhost:9913", "localhost"),
        ("0.0.0.0:9913", "any"),
        ("[::]:9913", "any"),
        ("127.0.0.1.example.org:9913", "any"),
        ("10.0.0.1:9913", "any"),
    ],
)
def test_only_who_can_reach_the_address_is_let_in(address: str, who: str) -> None:
    assert let_in(address) == who
    if who:
        told = texts(Machine(metrics=who))[f"{UNITS}/{WATCHER}.d/storewarden-metrics.conf"]
        assert f"IPAddressAllow={who}\n" in told
