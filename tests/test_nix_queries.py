# SPDX-License-Identifier: MIT
"""What Nix prints of itself and of paths, in all its shapes, and what is made of it."""

import ast
import json
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import storewarden
from stand_in import ends, write_program
from storewarden.nix_queries import (
    Flavour,
    NixVersion,
    Registration,
    Settings,
    feed_log,
    parse_daemon_version,
    parse_features,
    parse_settings,
    parse_version,
    query,
    registration,
    settings_of,
    version_of,
)
from storewarden.store.nix import HungError, Nix, SilentError
from storewarden.store.paths import StoreDir, StorePath

STORE = StoreDir("/nix/store")
VALID = StorePath("x80vbsl3hs31md8vk95ibvyjii8dy325-test")


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
    assert settings.features is None


def test_features_are_read_from_the_plain_text_too() -> None:
    printed = b"cores = 0\nexperimental-features = ca-derivations nix-command\nextra =\n"
    assert parse_features(printed) == frozenset({"ca-derivations", "nix-command"})
    assert parse_features(b"experimental-features = \n") == frozenset()
    assert parse_features(b"cores = 0\n") is None


@pytest.mark.parametrize(
    "printed",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"{}",
        b'{"sandbox": 1}',
        b"[" * 9999,
        told(sandbox=True)[:-1] + b', "x": 1, "x": 2}',
    ],
)
def test_what_is_no_such_document_is_not_understood(printed: bytes) -> None:
    with pytest.raises(SilentError):
        parse_settings(printed)


PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
VALUES = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.just("value"), PLAIN)
NAMES = ["sandbox", "sandbox_fallback", "experimental_features", "build_users_group", "start_id"]


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_whatever_settings_are_told_only_their_types_are_believed(
    values: dict[str, object],
) -> None:
    settings = parse_settings(told(cores=0, **values))
    assert settings.sandbox in {None, "true", "false", "relaxed"}
    assert settings.sandbox_fallback in {None, True, False}
    assert settings.features is None or all(isinstance(f, str) for f in settings.features)
    assert settings.build_group is None or isinstance(settings.build_group, str)


@given(st.binary())
def test_whatever_a_daemon_calls_itself_it_is_read_or_not_understood(printed: bytes) -> None:
    with suppress(SilentError):
        parse_daemon_version(printed)
        assert json.loads(printed)["version"]


def test_the_number_tells_a_daemon_of_lix() -> None:
    assert parse_daemon_version(b'{"version": "2.95.0"}').flavour is Flavour.LIX
    nix = parse_daemon_version(b'{"url": "daemon", "version": "2.34.6", "trusted": true}')
    assert nix == NixVersion(Flavour.NIX, (2, 34, 6), "2.34.6")
    with pytest.raises(SilentError):
        parse_daemon_version(b'{"url": "daemon"}')


PRINTED = {
    "nix (Nix) 2.8.0": (Flavour.NIX, (2, 8, 0), "Nix 2.8.0"),
    "nix (Nix) 2.34.8\n": (Flavour.NIX, (2, 34, 8), "Nix 2.34.8"),
    "nix (Nix) 2.3": (Flavour.NIX, (2, 3, 0), "Nix 2.3"),
    "nix-daemon (Nix) 2.26.3": (Flavour.NIX, (2, 26, 3), "Nix 2.26.3"),
    "nix (Lix, like Nix) 2.95.0": (Flavour.LIX, (2, 95, 0), "Lix 2.95.0"),
    "nix (Lix, like Nix) 2.95.0\nSystem type: x86_64-linux": (
        Flavour.LIX,
        (2, 95, 0),
        "Lix 2.95.0",
    ),
    "nix (Determinate Nix 3.20.0) 2.34.6": (
        Flavour.DETERMINATE,
        (2, 34, 6),
        "Determinate Nix 3.20.0 (Nix 2.34.6)",
    ),
}


@pytest.mark.parametrize("printed", PRINTED)
def test_every_make_of_nix_is_known_by_what_it_prints(printed: str) -> None:
    version = parse_version(printed)
    assert version is not None
    assert (version.flavour, version.number, version.name) == PRINTED[printed]
    assert not version.early


def test_what_was_made_before_a_release_is_not_that_release() -> None:
    version = parse_version("nix (Nix) 2.34.0pre20260101_1234567")
    assert version is not None
    assert (version.number, version.early) == ((2, 34, 0), True)
    assert version.name == "Nix 2.34.0pre20260101_1234567"


@pytest.mark.parametrize(
    "printed",
    ["", "2.8.0", "nix 2.8.0", "nix (Nix)", "nix (Nix) two", "nix (Guix) 1.4.0", "nix () 2.8.0"],
)
def test_what_is_not_understood_is_no_version(printed: str) -> None:
    assert parse_version(printed) is None


@given(st.text())
def test_whatever_is_printed_it_is_read_or_not_understood(printed: str) -> None:
    version = parse_version(printed)
    assert version is None or len(version.number) == 3


@given(st.tuples(*[st.integers(0, 999)] * 3))
def test_every_number_comes_through(number: tuple[int, int, int]) -> None:
    version = parse_version(f"nix (Nix) {number[0]}.{number[1]}.{number[2]}")
    assert version is not None
    assert version.number == number


def test_nobody_else_runs_nix() -> None:
    package = Path(storewarden.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        imported = {
            alias.name
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ImportFrom) and node.module == "storewarden.store.nix"
            for alias in node.names
        }
        if path not in {package / "store/nix.py", package / "nix_queries.py"}:
            assert not {"run", "started"} & imported, f"{path} runs Nix: that is for nix_queries.py"
            assert not imported or "subprocess" not in text, f"{path} may run Nix by itself"


def nix_that(directory: Path, body: str, timeout: float = 10.0) -> Nix:
    """A Nix whose programs both do that."""
    for name in ("nix", "nix-store"):
        write_program(f"{directory}/{name}", body)
    return Nix(f"{directory}/nix", STORE, f"{directory}/state", timeout)


@pytest.mark.parametrize(
    ("recorded", "text"),
    [
        ("text:sha256:1abc", "text:sha256:1abc"),
        (None, None),
        ({"method": "text", "hash": "sha256-"}, "text:sha256:"),
        ({"method": "flat", "hash": "sha1-AAAA"}, "fixed:sha1:00000"),
        ({"method": "git", "hash": "sha1-AAAA"}, "fixed:git:sha1:00000"),
        ({"method": "nar", "hash": "sha256-A"}, None),
        ({"method": "nar", "hash": 1}, None),
        ({"method": "new", "hash": "sha256-AAAA"}, None),
        (7, None),
    ],
)
def test_a_content_address_is_given_as_the_database_has_it(
    tmp_path: Path, recorded: object, text: str | None
) -> None:
    answer = {STORE.join(VALID.base_name): {"narHash": "x", "ca": recorded}}
    nix = nix_that(tmp_path, f"echo '{json.dumps(answer)}'\n")
    assert registration(nix, VALID) == Registration(None, None, None, text)


@pytest.mark.parametrize("answer", ["", "{}", "rubbish", "[]"])
def test_a_registration_that_nix_does_not_plainly_tell_is_not_guessed(
    tmp_path: Path, answer: str
) -> None:
    with pytest.raises(SilentError):
        registration(nix_that(tmp_path, f"echo '{answer}'\n"), VALID)


def test_the_answer_to_a_query_is_its_lines_or_why_there_is_none(tmp_path: Path) -> None:
    nix = nix_that(tmp_path, 'echo "$@"; echo b; echo a; echo b\n')
    assert query(nix, "--roots", "/x") == ("--query --roots /x", "a", "b")
    with pytest.raises(SilentError, match="nix-store: error: no such thing"):
        query(nix_that(tmp_path, "echo error: no such thing >&2; exit 1\n"), "--roots", "/x")


def test_a_nix_that_does_not_answer_in_time_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(HungError, match=r"nix did not answer within 0\.3 s"):
        version_of(nix_that(tmp_path, "exec sleep 60\n", 0.3))


def test_settings_are_asked_for_in_new_words_and_then_in_old_ones(tmp_path: Path) -> None:
    old = (
        """case "$*" in *show-config*) echo '{"sandbox": {"value": false}}' ;; *) exit 1 ;; esac"""
    )
    assert settings_of(nix_that(tmp_path, old)) == Settings(sandbox="false")
    both = """case $* in *config\\ show*) echo '{"sandbox": {"value": true},
    "experimental-features": {"value": ["flakes"]}}' ;; *) exit 1 ;; esac"""
    settings = Settings(sandbox="true", features=frozenset({"flakes"}))
    assert settings_of(nix_that(tmp_path, both)) == settings
    silent = 'echo "error: not $4" >&2; exit 1\n'
    with pytest.raises(SilentError, match="nix: error: not config"):
        settings_of(nix_that(tmp_path, silent))
    with pytest.raises(SilentError, match="what nix config show says is not understood"):
        settings_of(nix_that(tmp_path, "echo rubbish\n"))


def test_of_a_log_what_nix_gives_in_time_counts_and_nothing_is_left_running(
    tmp_path: Path,
) -> None:
    pieces: list[bytes] = []
    body = f'echo $$ >{tmp_path}/pid; echo "$@"; echo noise >&2; sleep 60\n'
    began = time.monotonic()
    feed_log(nix_that(tmp_path, body), "/nix/store/x.drv", 3.0, pieces.append)
    assert time.monotonic() - began < 50
    assert b"".join(pieces) == b"--option substitute false --read-log /nix/store/x.drv\n"
    assert ends(int((tmp_path / "pid").read_text()))


def test_a_log_ends_with_nix_and_a_nix_that_is_not_there_has_none(tmp_path: Path) -> None:
    pieces: list[bytes] = []
    began = time.monotonic()
    feed_log(nix_that(tmp_path, "echo all of it; exit 1\n"), "x", 60.0, pieces.append)
    feed_log(Nix(f"{tmp_path}/absent/nix", STORE, "/s"), "x", 60.0, pieces.append)
    assert pieces == [b"all of it\n"]
    assert time.monotonic() - began < 30
