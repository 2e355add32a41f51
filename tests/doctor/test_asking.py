# SPDX-License-Identifier: MIT
"""Asking Nix about itself: stand-ins for its program answer, refuse, lie and hang."""

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stand_in import write_program
from storewarden.doctor.asking import (
    ask_nix,
    last_changed,
    parse_daemon_version,
    parse_features,
    parse_settings,
)
from storewarden.doctor.facts import Nix, Settings, Unknown
from storewarden.doctor.versions import Flavour, NixVersion
from storewarden.store import nix as validity
from storewarden.store.fact import Fact, Known
from storewarden.store.paths import StoreDir


def told(**values: object) -> bytes:
    """As `nix show-config --json` prints it."""
    named = {name.replace("_", "-"): {"value": value} for name, value in values.items()}
    return json.dumps(named).encode()


@pytest.mark.parametrize(
    ("value", "said"),
    [(True, "true"), (False, "false"), ("relaxed", "relaxed"), (3, None), ("maybe", None)],
)
def test_the_sandbox_is_one_of_three_or_not_told(value: object, said: str | None) -> None:
    assert parse_settings(told(sandbox=value)) == Settings(sandbox=said)


def test_settings_are_read_as_nix_tells_them() -> None:
    printed = told(
        sandbox=True,
        sandbox_fallback=False,
        experimental_features=["nix-command", "ca-derivations"],
        build_users_group="nixbld",
        auto_allocate_uids=True,
        start_id=872415232,
        id_count=8388608,
    )
    features = frozenset({"nix-command", "ca-derivations"})
    assert parse_settings(printed) == Settings(
        sandbox="true",
        sandbox_fallback=False,
        features=features,
        build_group="nixbld",
        allocates=True,
        first_allocated=872415232,
        allocated=8388608,
    )


def test_features_as_numbers_are_not_told() -> None:  # as by 2.8
    settings = parse_settings(told(sandbox=False, experimental_features=[0, 2, 3]))
    assert settings is not None
    assert settings.features is None


def test_features_are_read_from_the_plain_text_too() -> None:
    printed = b"cores = 0\nexperimental-features = ca-derivations nix-command\nextra =\n"
    assert parse_features(printed) == frozenset({"ca-derivations", "nix-command"})
    assert parse_features(b"experimental-features = \n") == frozenset()
    assert parse_features(b"cores = 0\n") is None


@pytest.mark.parametrize("printed", [b"", b"{", b"[]", b"7", b"{}", b'{"sandbox": 1}', b"[" * 9999])
def test_what_is_no_such_document_is_not_understood(printed: bytes) -> None:
    assert parse_settings(printed) is None


PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
VALUES = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.just("value"), PLAIN)
NAMES = ["sandbox", "sandbox_fallback", "experimental_features", "build_users_group", "start_id"]


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_whatever_settings_are_told_only_their_types_are_believed(
    values: dict[str, object],
) -> None:
    settings = parse_settings(told(**values))
    assert (settings is None) == (not values)
    if settings is not None:
        assert settings.sandbox in {None, "true", "false", "relaxed"}
        assert settings.sandbox_fallback in {None, True, False}
        assert settings.features is None or all(isinstance(f, str) for f in settings.features)
        assert settings.build_group is None or isinstance(settings.build_group, str)


@given(st.binary())
def test_whatever_a_daemon_calls_itself_it_is_read_or_not_understood(printed: bytes) -> None:
    assert parse_daemon_version(printed) is None or json.loads(printed)["version"]


def test_the_number_tells_a_daemon_of_lix() -> None:
    lix = parse_daemon_version(b'{"version": "2.95.0"}')
    assert lix is not None
    assert lix.flavour is Flavour.LIX
    nix = parse_daemon_version(b'{"url": "daemon", "version": "2.34.6", "trusted": true}')
    assert nix == NixVersion(Flavour.NIX, (2, 34, 6), "2.34.6")
    assert parse_daemon_version(b'{"url": "daemon"}') is None


ANSWERING = """
case "$*" in
*--version*) echo 'nix (Determinate Nix 3.20.0) 2.34.6' ;;
*path-info*) printf '{"%s":null}' "${6}" ;;
*config\\ show*) cat SETTINGS ;;
*store\\ info*) echo '{"version": "DAEMON"}' ;;
*) exit 1 ;;
esac
"""


@pytest.fixture
def state() -> Iterator[str]:
    """A state directory with a daemon's socket in it, whose name is not too long for one."""
    with (
        tempfile.TemporaryDirectory(prefix="sw-") as directory,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        os.mkdir(f"{directory}/daemon-socket")
        listener.bind(f"{directory}/daemon-socket/socket")
        yield directory


def asked(directory: Path, body: str, state_dir: str, timeout: float = 10.0) -> Nix:
    program = write_program(f"{directory}/nix", body)
    nix = validity.Nix(program, StoreDir("/nix/store"), state_dir, timeout)
    return ask_nix(nix, [f"{directory}/nix.conf"])


def answering(directory: Path, daemon: str) -> str:
    (directory / "settings").write_bytes(told(sandbox=True, experimental_features=["flakes"]))
    return ANSWERING.replace("SETTINGS", f"{directory}/settings").replace("DAEMON", daemon)


def test_all_is_asked_that_is_wanted(tmp_path: Path, state: str) -> None:
    nix = asked(tmp_path, answering(tmp_path, "2.34.6"), state)
    assert isinstance(nix.version, NixVersion)
    assert nix.version.name == "Determinate Nix 3.20.0 (Nix 2.34.6)"
    assert nix.builder == nix.daemon_version == nix.version
    assert nix.settings == Settings(sandbox="true", features=frozenset({"flakes"}))
    assert nix.answers == Fact(Known.YES)


def test_a_daemon_of_another_version_is_what_builds(tmp_path: Path, state: str) -> None:
    nix = asked(tmp_path, answering(tmp_path, "2.26.3"), state)
    assert isinstance(nix.builder, NixVersion)
    assert nix.builder.name == "Nix 2.26.3"


def test_older_programs_are_asked_in_their_own_words(tmp_path: Path, state: str) -> None:
    (tmp_path / "numbers").write_bytes(told(sandbox=False, experimental_features=[0]))
    body = f"""
case "$*" in
*--version) echo 'nix (Nix) 2.8.0' ;;
*show-config\\ --json) cat {tmp_path}/numbers ;;
*show-config) echo 'experimental-features = ca-derivations' ;;
*) exit 1 ;;
esac
"""
    nix = asked(tmp_path, body, state)
    expected = Settings(sandbox="false", features=frozenset({"ca-derivations"}))
    assert nix.settings == expected
    assert nix.answers.known is Known.NO
    assert isinstance(nix.daemon_version, Unknown)


def test_a_nix_that_is_not_there_is_unknown_throughout(tmp_path: Path, state: str) -> None:
    nix = ask_nix(validity.Nix(f"{tmp_path}/absent", StoreDir("/nix/store"), state))
    for fact in (nix.version, nix.settings, nix.builder):
        assert isinstance(fact, Unknown)
    assert "no such file" in nix.answers.detail


@pytest.mark.parametrize(
    ("body", "misconfigured"),
    [
        ('[ "$NIX_CONF_DIR" = /dev/null ] || exit 1; echo "nix (Nix) 2.8.0"\n', True),
        ("exit 1\n", False),
        ("echo something else\n", False),
    ],
)
def test_whether_it_is_the_configuration_is_told_by_leaving_it_out(
    tmp_path: Path, state: str, body: str, *, misconfigured: bool
) -> None:
    nix = asked(tmp_path, body, state)
    assert isinstance(nix.version, Unknown)
    assert nix.misconfigured is misconfigured


def test_a_nix_that_hangs_is_not_waited_for(tmp_path: Path, state: str) -> None:
    nix = asked(tmp_path, "sleep 60\n", state, timeout=0.3)
    assert isinstance(nix.version, Unknown)
    assert "did not answer within" in nix.version.reason


def test_without_a_daemon_nothing_is_asked_that_makes_a_store(tmp_path: Path) -> None:
    body = f'echo "$@" >>{tmp_path}/words; echo "nix (Nix) 2.8.0"\n'
    nix = asked(tmp_path, body, f"{tmp_path}/none")
    assert nix.answers.known is Known.UNKNOWN
    words = (tmp_path / "words").read_text()
    assert "path-info" not in words
    assert "store" not in words


def test_settings_from_a_file_that_cannot_be_read_are_not_believed(
    tmp_path: Path, state: str
) -> None:
    (tmp_path / "nix.conf").mkdir()
    nix = asked(tmp_path, answering(tmp_path, "2.34.6"), state)
    assert nix.settings == Unknown(f"{tmp_path}/nix.conf: is a directory")
    assert isinstance(nix.version, NixVersion)


def test_when_the_configuration_was_changed_is_told_by_its_files(tmp_path: Path) -> None:
    assert last_changed([f"{tmp_path}/absent"]) is None
    (tmp_path / "one").write_text("")
    changed = last_changed([f"{tmp_path}/absent", f"{tmp_path}/one"])
    assert changed == os.stat(f"{tmp_path}/one").st_ctime
