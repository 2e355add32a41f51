# SPDX-License-Identifier: MIT
"""Commands to copy: those for the usual store as they are, those for another with all it takes."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storewarden.copyable import USUAL, ThisStore, can_be_copied, repair_path

OTHER = ThisStore("/srv/nix/store", "/srv/nix/var")
OPTIONS = "--store-dir /srv/nix/store --state-dir /srv/nix/var"
NIX = "env NIX_STORE_DIR=/srv/nix/store NIX_STATE_DIR=/srv/nix/var"
PLACES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1).map(
    "/{}".format
)


@pytest.mark.parametrize(
    ("usual", "other"),
    [
        ("sudo storewarden scan --yes", f"sudo storewarden scan --yes {OPTIONS}"),
        ("storewarden explain /x", f"storewarden explain /x {OPTIONS}"),
        ("nix-store --gc", f"{NIX} nix-store --gc"),
        ("sudo nix-store --verify", f"sudo {NIX} nix-store --verify"),
        ("nix log /x.drv", f"{NIX} nix log /x.drv"),
        (
            "nix-store -q /x | xargs nix-store -d",
            f"{NIX} nix-store -q /x | xargs {NIX} nix-store -d",
        ),
        ("nix-store -d /x && nix-store -r /y", f"{NIX} nix-store -d /x && {NIX} nix-store -r /y"),
        ("rm /nix/store/nix-store", "rm /nix/store/nix-store"),
        ("sudo kill 7", "sudo kill 7"),
        ("", ""),
    ],
)
def test_a_command_names_the_store_unless_it_is_the_usual_one(usual: str, other: str) -> None:
    assert USUAL.command(usual) == usual
    assert OTHER.command(usual) == other
    assert OTHER.command("rm /nix/store/x") == "rm /nix/store/x", "a path is filled in already"


@pytest.mark.parametrize(
    ("usual", "other"),
    [
        ("findmnt --target /nix/store", "findmnt --target /srv/nix/store"),
        (
            "sudo cp -a /nix/var/nix/db /nix/var/nix/db.before",
            "sudo cp -a /srv/nix/var/db /srv/nix/var/db.before",
        ),
        ("df -h /nix /var/tmp", "df -h /nix /var/tmp"),
        ("storewarden explain PATHS", f"storewarden explain PATHS {OPTIONS}"),
    ],
)
def test_in_what_is_said_of_every_store_its_directories_are_put_in(usual: str, other: str) -> None:
    assert USUAL.template(usual) == usual
    assert OTHER.template(usual) == other


@given(PLACES, PLACES)
def test_a_shell_reads_the_very_directories_whatever_they_are_called(
    store: str, state: str
) -> None:
    this = ThisStore(store, state)
    asked = shlex.split(this.command("storewarden scan"))
    assert asked[2:] in ([], ["--store-dir", store, "--state-dir", state])
    asked = shlex.split(this.command("sudo nix-store --gc"))
    assert asked[1:-2] in ([], ["env", f"NIX_STORE_DIR={store}", f"NIX_STATE_DIR={state}"])


def test_what_a_terminal_would_not_show_as_it_is_cannot_be_copied() -> None:
    assert can_be_copied("ls -lad '/nix/store/x; touch y'")
    for name in ("a\nb", "\x1b[2J", "\u202e", "é", "\udcff"):
        assert not can_be_copied(f"ls -lad '/nix/store/{name}'")


def test_a_shell_reads_the_empty_list_of_features_as_one_word() -> None:
    words = ["--repair-path", "/srv/my store/x", "--option", "experimental-features", ""]
    assert shlex.split(repair_path("/srv/my store/x")) == ["sudo", "nix-store", *words]
