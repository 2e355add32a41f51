# SPDX-License-Identifier: MIT
"""The configuration: what it takes, what it refuses and how it says so."""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import storewarden
from command import PROGRAM, report, run
from storewarden.claims import PROOF, REMOVED_BY_DEFAULT
from storewarden.cli.service import document_of
from storewarden.config import (
    KEYS,
    Config,
    ConfigError,
    Mode,
    load_config,
    load_config_if_there,
    parse_config,
    seconds,
)
from storewarden.store.entries import EntryKind
from storewarden.store.paths import StoreDir

CHECKOUT = Path(os.path.dirname(storewarden.__file__), "../..")
WHOLE = """\
mode = "report"
kinds = ["chroot", "lock"]
min-age = "30s"
sweep-interval = "5m"
poll-interval = "1m"
max-removals = 7
store-dir = "/gnu/store"
state-dir = "/gnu/var/"
build-group = "builders"
nix = "/opt/nix/bin/nix"
socket = "/run/s"
audit-log = "/var/log/a.jsonl"
runtime-dir = "/run/w"
metrics-textfile = "/var/lib/t/storewarden.prom"
metrics-listen = "[::1]:9913"
"""


def written(tmp_path: Path, text: str | bytes) -> str:
    place = tmp_path / "config.toml"
    place.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(place)


def test_nothing_said_means_that_outputs_and_locks_are_repaired(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "# nothing\n"))
    assert config == Config()
    assert (config.mode, config.kinds) == (Mode.REPAIR, REMOVED_BY_DEFAULT)


def test_every_key_is_read(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, WHOLE)) == Config(
        mode=Mode.REPORT,
        kinds=frozenset({EntryKind.CHROOT, EntryKind.LOCK}),
        min_age=30,
        sweep_interval=300,
        poll_interval=60,
        max_removals=7,
        store_dir=StoreDir("/gnu/store"),
        state_dir="/gnu/var",
        build_group="builders",
        nix="/opt/nix/bin/nix",
        socket="/run/s",
        audit_log="/var/log/a.jsonl",
        runtime_dir="/run/w",
        metrics_textfile="/var/lib/t/storewarden.prom",
        metrics_listen="[::1]:9913",
    )
    assert WHOLE.count(" = ") == len(KEYS)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('mood = "report"', "unknown key 'mood'; did you mean 'mode'?"),
        ('min_age = "3s"', "unknown key 'min_age'; did you mean 'min-age'?"),
        ("zzz = 1", "unknown key 'zzz'; known are mode, kinds, min-age"),
        ("[storewarden]", "unknown key 'storewarden'"),
        ('mode = "clean"', "mode: 'clean' is neither 'report' nor 'repair'"),
        ("mode = true", "mode: True is not a text"),
        ('kinds = "output"', "kinds: a list of kinds is wanted"),
        ("kinds = [1]", "kinds: a list of kinds is wanted"),
        ('kinds = ["old"]', "kinds: 'old' is never removed"),
        ('kinds = ["missing"]', "kinds: 'missing' is never removed"),
        ("min-age = 30", "min-age: 30 is not a length of time"),
        ('min-age = "-1s"', "min-age: '-1s' is not a length of time"),
        ('min-age = "9999999999s"', "is not a length of time"),
        ('min-age = "20000d"', "min-age: '20000d' is not a length of time"),
        ('sweep-interval = "0"', "sweep-interval: '0' is too short"),
        ('poll-interval = "0s"', "poll-interval: '0s' is too short"),
        ("max-removals = true", "max-removals: True is not a number of entries"),
        ("max-removals = -1", "max-removals: -1 is not a number of entries"),
        ("max-removals = 0x" + "f" * 16, "max-removals: 18446744073709551615 is not a number"),
        ("max-removals = 0x" + "f" * 4000, "max-removals: Exceeds the limit"),
        ("max-removals = 1.5", "max-removals: 1.5 is not a number of entries"),
        ('store-dir = "nix/store"', "store-dir: 'nix/store' is not an absolute, plain"),
        ('store-dir = "/nix/store/"', "store-dir: '/nix/store/' is not an absolute, plain"),
        ("store-dir = []", "store-dir: [] is not a text"),
        ('state-dir = "var"', "state-dir: 'var' is not an absolute path"),
        ('nix = ""', "nix: '' is not a text"),
        ('socket = "/run/\\u0000"', "is not an absolute path"),
        ('metrics-listen = "9913"', "metrics-listen: '9913' is not HOST:PORT, such as 127.0.0.1:"),
        ('metrics-listen = "::1:65536"', "metrics-listen: '::1:65536' is not HOST:PORT"),
        ('mode = "report"\nmode = "repair"', "overwrite"),
        ("mode = report", "Invalid value"),
        ("mode", "Expected"),
        ("[" * 10_000, ""),
        (b'nix = "\xff"', "utf-8"),
        (b"#" * (64 * 1024 + 1), "longer than a configuration can be"),
        (b"a" + b".a" * 150_000 + b" = 1", "longer than a configuration can be"),
        (b"a" + b".a" * 30_000 + b" = 1", "a line is longer than any can be"),
        ("a" * 4000 + " = 1", f"unknown key '{'a' * 60}'; known are"),
    ],
)
def test_what_is_wrong_is_refused_with_the_file_and_the_key(
    tmp_path: Path, text: str | bytes, wanted: str
) -> None:
    place = written(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        load_config(place)
    assert str(refused.value).startswith(f"{place}: ")
    assert wanted in str(refused.value)


@pytest.mark.parametrize("kind", ["absent", "directory"])
def test_a_file_that_cannot_be_read_is_an_error_and_not_the_defaults(
    tmp_path: Path, kind: str
) -> None:
    place = str(tmp_path) if kind == "directory" else f"{tmp_path}/absent"
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(place)


@pytest.mark.parametrize("name", ["loop/config.toml", "a" * 300])
def test_one_of_which_it_cannot_be_told_whether_it_is_there_is_not_taken_for_absent(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*too (many|long)"):
        load_config_if_there(f"{tmp_path}/{name}")
    assert load_config_if_there(f"{tmp_path}/absent") == Config()


CONFIGS = st.builds(
    Config,
    mode=st.sampled_from(Mode),
    kinds=st.frozensets(st.sampled_from(sorted(PROOF))),
    min_age=st.integers(0, 10**8).map(float),
    sweep_interval=st.integers(1, 10**8).map(float),
    poll_interval=st.integers(1, 10**8).map(float),
    max_removals=st.integers(0, 10**6),
    nix=st.none() | st.just("/opt/nix"),
)


@given(CONFIGS)
def test_what_is_said_of_a_configuration_is_read_as_the_same(config: Config) -> None:
    assert parse_config(document_of(config)) == config


TOML = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
NAMES = st.sampled_from(sorted(KEYS)) | st.text()


@given(st.dictionaries(NAMES, TOML, max_size=3))
def test_any_document_is_a_configuration_or_one_clear_error(document: dict[str, object]) -> None:
    try:
        config = parse_config(document)
    except ConfigError as refused:
        keys = [key[:60] for key in document]
        assert any(repr(key) in str(refused) or key in str(refused) for key in keys)  # noqa: PT017
    else:
        assert set(document) <= {*document_of(config)}


@given(st.text(alphabet="0123456789smhd. -e\n\u0665", max_size=12))
def test_a_length_of_time_is_a_whole_number_with_at_most_one_unit(text: str) -> None:
    digits = text[:-1] if text[-1:] in {"s", "m", "h", "d"} else text
    plain = digits.isascii() and digits.isdigit() and len(digits) <= 9
    length = int(digits) * {"m": 60, "h": 3600, "d": 86400}.get(text[-1], 1) if plain else 0
    if plain and length < 10**9:
        assert seconds(text) == length
    else:
        with pytest.raises(ConfigError):
            seconds(text)


@pytest.mark.skipif(not (CHECKOUT / "nix").exists(), reason="the checkout is not here")
@pytest.mark.parametrize("key", [*KEYS])
def test_each_key_is_told_of_wherever_a_stranger_looks_for_it(key: str) -> None:
    """A page of the manual and the schema have tests of their own: test_man, test_schemas."""
    options = (CHECKOUT / "nix/options.nix").read_text(encoding="utf-8")
    module = (CHECKOUT / "nix/module.nix").read_text(encoding="utf-8")
    fixed = re.search(r"fixed = lib.genAttrs \[(.*?)\]", module, re.DOTALL)
    assert fixed
    if f'"{key}"' not in fixed[1]:
        assert re.search(rf"^ {{10}}{key} =", options, re.MULTILINE), f"nix/options.nix lacks {key}"
        table = (CHECKOUT / "docs/nix.md").read_text(encoding="utf-8")
        assert f"| `settings.{key}` |" in table, f"docs/nix.md has no row for {key}"
    sentence = KEYS[key].metadata["sentence"]
    assert re.fullmatch(r"\S.*\.", sentence), f"{key} needs a sentence"
    assert key in WHOLE, f"WHOLE in this file lacks {key}"


def test_check_config_shows_all_of_it_as_it_may_be_written(tmp_path: Path) -> None:
    place = written(tmp_path, 'mode = "report"\n')
    shown = run([*PROGRAM, "check-config", place])
    assert (shown.returncode, shown.stderr) == (0, "")
    assert load_config(written(tmp_path, shown.stdout)) == Config(mode=Mode.REPORT)
    as_json = report(run([*PROGRAM, "check-config", "--json", place]))
    assert as_json["config"] == json.loads(json.dumps(document_of(Config(mode=Mode.REPORT))))


def test_check_config_tells_a_wrong_one_in_one_line_and_exits_with_2(tmp_path: Path) -> None:
    place = written(tmp_path, "min-aeg = 3\n")
    done = run([*PROGRAM, "check-config", place])
    assert (done.returncode, done.stdout) == (2, "")
    wanted = f"{place}: unknown key 'min-aeg'; did you mean 'min-age'?"
    assert done.stderr == f"storewarden: error: {wanted}\n"
