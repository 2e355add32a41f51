# SPDX-License-Identifier: MIT
"""Asking Nix: stand-ins for its programs answer, refuse, lie, hang and die."""

from pathlib import Path

import pytest

from stand_in import ends, write_answering_nix, write_program
from storewarden.store.nix import Nix, ask, find_nix
from storewarden.store.paths import StoreDir, StorePath
from storewarden.store.store import Fact, Known

STORE = StoreDir("/nix/store")
ONE = StorePath("x80vbsl3hs31md8vk95ibvyjii8dy325-test")
TWO = StorePath("ghnpxgmm86pibjgnf0x49b5qgfcf8yxa-test-dev")
FULL_ONE, FULL_TWO = STORE.join(ONE.base_name), STORE.join(TWO.base_name)
FAILS = "echo 'error: getting status of x: Permission denied' >&2; exit 1\n"


def nix_in(directory: Path, timeout: float = 10.0) -> Nix:
    """The Nix whose programs a test put into `directory`."""
    return Nix(f"{directory}/nix", STORE, f"{directory}/state", timeout)


def programs(directory: Path, nix: str, nix_store: str) -> Nix:
    """Both programs with these bodies."""
    write_program(f"{directory}/nix", nix)
    write_program(f"{directory}/nix-store", nix_store)
    return nix_in(directory)


def known(nix: Nix, *paths: StorePath) -> list[Known]:
    """What `ask` learned, in the order of `paths`."""
    answers = ask(nix, paths)
    assert set(answers) == set(paths)
    return [answers[path].known for path in paths]


def test_path_info_is_asked_for_all_paths_at_once(tmp_path: Path) -> None:
    write_answering_nix(f"{tmp_path}/nix", [FULL_ONE])
    assert known(nix_in(tmp_path), ONE, TWO) == [Known.YES, Known.NO]


def test_it_is_asked_offline_and_for_json_without_a_shell(tmp_path: Path) -> None:
    programs(tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/words; pwd >> {tmp_path}/words\n', "")
    ask(nix_in(tmp_path), [ONE, TWO])
    assert (tmp_path / "words").read_text().split("\n")[:-1] == [
        "--extra-experimental-features",
        "nix-command",
        "--offline",
        "path-info",
        "--json",
        FULL_ONE,
        FULL_TWO,
        "/",
    ]


def test_nothing_is_asked_about_nothing(tmp_path: Path) -> None:
    programs(tmp_path, f"touch {tmp_path}/asked\n", "")
    assert ask(nix_in(tmp_path), []) == {}
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    "nix",
    [
        FAILS,
        "exit 1\n",
        "echo rubbish\n",
        "echo '{'\n",
        "echo '{}'\n",
        "echo '[]'\n",
        "exit 0\n",
        f"echo '{{\"{FULL_ONE}\": null}}'\n",
        f'echo \'{{"{FULL_ONE}": null, "{FULL_TWO}": null}}\'; exit 1\n',
        "kill -9 $$\n",
    ],
)
def test_where_path_info_does_not_answer_for_all_nix_store_is_asked(
    tmp_path: Path, nix: str
) -> None:
    words = f'[ "$*" = "--check-validity --print-invalid {FULL_ONE} {FULL_TWO}" ] || exit 9\n'
    asked = programs(tmp_path, nix, f"{words}echo {FULL_TWO}\n")
    assert known(asked, ONE, TWO) == [Known.YES, Known.NO]


def test_nix_store_answers_where_there_is_no_nix(tmp_path: Path) -> None:
    write_program(f"{tmp_path}/nix-store", f"echo {FULL_ONE}\n")
    assert known(nix_in(tmp_path), ONE, TWO) == [Known.NO, Known.YES]


@pytest.mark.parametrize(
    "nix_store",
    [
        FAILS,
        f"echo {FULL_ONE}; exit 1\n",
        f"echo {FULL_ONE}; kill -9 $$\n",
        f"echo {FULL_ONE}; echo /nix/store/{'0' * 32}-another\n",
        f"echo {FULL_ONE}; echo\n",
        f"echo ' {FULL_ONE}'\n",
        f"echo {FULL_ONE}/bin\n",
        f"echo {ONE.base_name}\n",
        "echo warning: something\n",
        "printf '\\377\\376\\n'\n",
    ],
)
def test_what_nix_store_did_not_plainly_say_is_unknown(tmp_path: Path, nix_store: str) -> None:
    asked = programs(tmp_path, FAILS, nix_store)
    assert known(asked, ONE, TWO) == [Known.UNKNOWN, Known.UNKNOWN]


def test_without_any_program_it_is_unknown_and_says_why(tmp_path: Path) -> None:
    fact = ask(nix_in(tmp_path), [ONE])[ONE]
    assert fact == Fact(
        Known.UNKNOWN, f"cannot run {tmp_path}/nix-store: no such file or directory"
    )


def test_the_last_words_of_a_failure_are_shown_escaped_and_short(tmp_path: Path) -> None:
    loud = "printf 'first\\n\\033[31mno \\377 such thing \\342\\200\\256\\n\\n' >&2; exit 1\n"
    detail = ask(programs(tmp_path, loud, loud), [ONE])[ONE].detail
    assert detail.startswith("nix-store: ")
    assert "no " in detail
    assert "first" not in detail
    assert detail.isascii()
    long = "i=0; while [ $i -lt 2000 ]; do printf x >&2; i=$((i+1)); done; exit 1\n"
    assert len(ask(programs(tmp_path, long, long), [ONE])[ONE].detail) < 400


def test_the_error_is_shown_and_not_the_hint_below_it(tmp_path: Path) -> None:
    said = "\\033[31;1merror:\\033[0m illegal configuration line 'x' in '/etc/nix/nix.conf'"
    hint = "Try '/usr/bin/nix --help' for more information."
    fails = f"""printf "warning: so what\n{said}\n{hint}\n" >&2; exit 1\n"""
    detail = ask(programs(tmp_path, fails, fails), [ONE])[ONE].detail
    assert detail == "nix-store: error: illegal configuration line 'x' in '/etc/nix/nix.conf'"


def test_nix_sees_nothing_of_the_callers_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "NIX_CONFIG",
        "NIX_REMOTE",
        "NIX_STORE_DIR",
        "LD_PRELOAD_X",
        "NIX_USER_CONF_FILES",
    ):
        monkeypatch.setenv(name, "from-outside")
    programs(tmp_path, f"export -p > {tmp_path}/seen\n", "")
    ask(nix_in(tmp_path), [ONE])
    seen = (tmp_path / "seen").read_text()
    assert "HOME" in seen
    assert "from-outside" not in seen


def test_the_daemon_is_asked_where_there_is_one(tmp_path: Path) -> None:
    nix = nix_in(tmp_path)
    assert "NIX_REMOTE" not in nix.environment()
    (tmp_path / "state" / "daemon-socket").mkdir(parents=True)
    (tmp_path / "state" / "daemon-socket" / "socket").touch()
    assert nix.environment()["NIX_REMOTE"] == "daemon"


def test_only_a_store_elsewhere_is_named_to_nix() -> None:
    usual = Nix("/nix", STORE, "/nix/var/nix").environment()
    assert not {"NIX_STORE_DIR", "NIX_STATE_DIR"} & set(usual)
    elsewhere = Nix("/nix", StoreDir("/a/store"), "/a/var").environment()
    assert (elsewhere["NIX_STORE_DIR"], elsewhere["NIX_STATE_DIR"]) == ("/a/store", "/a/var")


def test_the_first_program_that_can_be_run_is_taken(tmp_path: Path) -> None:
    (tmp_path / "plain").touch(mode=0o644)
    good = write_program(f"{tmp_path}/good", "")
    places = [f"{tmp_path}/absent", f"{tmp_path}/plain", good, "/bin/sh"]
    assert find_nix(None, places) == good
    assert find_nix("/wanted", places) == "/wanted"
    assert find_nix(None, places[:2]) == places[0]


# A Nix that has ended, and what it started has not.


def test_what_nix_left_behind_is_ended_where_it_holds_the_answer_back(tmp_path: Path) -> None:
    write_program(f"{tmp_path}/nix", f"sleep 60 & echo $! > {tmp_path}/pid; exit 0\n")
    write_program(f"{tmp_path}/nix-store", "exit 1\n")
    path = StorePath(f"{'0' * 32}-x")
    nix = Nix(f"{tmp_path}/nix", StoreDir("/nix/store"), f"{tmp_path}/state", timeout=2.0)
    assert ask(nix, [path])[path].known is Known.UNKNOWN
    assert ends(int((tmp_path / "pid").read_text()))
