# SPDX-License-Identifier: MIT
"""What the configuration says holds for every command, unless an option says otherwise."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from command import PROGRAM, ROOT, Desk, open_desk, report, run, strand_lock
from storewarden.config import DEFAULT_CONFIG
from storewarden.throwaway import ThrowawayStore

DENIED = "mkdir: cannot create directory '%s/x': Permission denied"


@pytest.fixture
def desk(place: ThrowawayStore, tmp_path: Path) -> Desk:
    """A store with something dead in it, and a stand-in for Nix."""
    strand_lock(place, "dead")
    return open_desk(place, tmp_path)


def text_for(desk: Desk, **more: str) -> str:
    """A configuration that keeps a command off this machine's own store."""
    settings = {
        "store-dir": desk.place.store_dir.path,
        "state-dir": desk.place.state_dir,
        "nix": desk.nix,
        "audit-log": desk.audit_log,
        "socket": f"{desk.directory}/helper.sock",
        "runtime-dir": f"{desk.directory}/watch",
        "min-age": "0",
    }
    settings |= {key.replace("_", "-"): value for key, value in more.items()}
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


def told(desk: Desk, *words: str, **more: str) -> list[str]:
    """The command with such a configuration, and no other option."""
    config = f"{desk.directory}/config.toml"
    Path(config).write_text(text_for(desk, **more), encoding="utf-8")
    return [*PROGRAM, *words[:1], "--config", config, *words[1:]]


def test_a_scan_looks_removes_and_records_where_it_says(desk: Desk) -> None:
    shown = report(run(told(desk, "scan", "--yes", "--json")))
    assert [one["status"] for one in shown["outcomes"]] == ["removed"]
    assert desk.locks() == 0
    assert os.path.exists(desk.audit_log)


def test_the_audit_log_is_the_one_that_it_names(desk: Desk) -> None:
    run(told(desk, "scan", "--yes"))
    config = f"{desk.directory}/config.toml"
    shown = report(run([*PROGRAM, "audit", "show", "--json", "--config", config]))
    assert [one["action"] for one in shown["records"]] == ["intent", "result"]
    assert run([*PROGRAM, "audit", "verify", "--config", config]).returncode == 0


def test_locks_and_paths_are_those_of_its_store(desk: Desk) -> None:
    [name] = [name for name in desk.names() if name.endswith(".lock")]
    shown = report(run(told(desk, "locks", "--json")))
    assert desk.place.path(name) in {one["path"] for one in shown["locks"]}
    explained = report(run(told(desk, "explain", "--json", desk.place.path(name))))
    assert [one["path"] for one in explained["paths"]] == [desk.place.path(name)]


def test_a_log_is_explained_for_its_store(desk: Desk) -> None:
    path = desk.place.path(desk.place.invent("wedged").base_name)
    log = Path(desk.directory, "log.txt")
    log.write_text(f"{DENIED % path}\n", encoding="ascii")
    assert path in run(told(desk, "explain", "--log", str(log))).stdout


@pytest.mark.skipif(not ROOT, reason="only root can make what belongs to a build user")
def test_a_build_is_run_again_after_what_it_failed_on_in_its_store(desk: Desk) -> None:
    path = desk.place.path(desk.place.strand(desk.place.add_derivation("hello")).base_name)
    script = f'[ ! -e {path} ] || {{ echo "{DENIED % path}" >&2; exit 7; }}'
    done = run(told(desk, "run", "--", "sh", "-c", script))
    assert done.returncode == 0, done.stderr
    assert not os.path.lexists(path)
    assert os.path.exists(desk.audit_log)


def test_an_option_wins(desk: Desk) -> None:
    young = report(run(told(desk, "scan", "--yes", "--json", min_age="1d")))
    assert (young["outcomes"], desk.locks()) == ([], 1)
    elsewhere = f"{desk.directory}/elsewhere/audit.jsonl"
    words = [*told(desk, "scan", "--yes", min_age="1d"), "--min-age", "0"]
    assert run([*words, "--audit-log", elsewhere]).returncode == 0
    assert desk.locks() == 0
    assert (os.path.exists(elsewhere), os.path.exists(desk.audit_log)) == (True, False)


def test_a_kind_that_it_leaves_out_is_removed_only_by_name(desk: Desk) -> None:
    config = f"{desk.directory}/kinds.toml"
    Path(config).write_text(text_for(desk) + 'kinds = ["output"]\n', encoding="utf-8")
    for words, left in (([], 1), (["--kind", "lock"], 0)):
        assert run([*PROGRAM, "scan", "--yes", "--config", config, *words]).returncode == 0
        assert desk.locks() == left


@pytest.mark.parametrize(
    "words",
    [
        ["scan"],
        ["explain", "x"],
        ["explain", "-"],
        ["explain", "--log", os.devnull],
        ["locks"],
        ["run", "--", "touch"],
        ["audit", "show"],
        ["audit", "verify"],
        ["status"],
        ["doctor"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("text", ['mood = "report"\n', None])
def test_one_that_is_named_and_wrong_is_wrong_use_and_nothing_is_done(
    words: list[str], text: str | None, tmp_path: Path
) -> None:
    config, touched = tmp_path / "config.toml", tmp_path / "touched"
    if text is not None:
        config.write_text(text)
    more = [str(touched)] if words[0] == "run" else []
    at = 2 if words[0] == "audit" else 1
    done = run([*PROGRAM, *words[:at], "--config", str(config), *words[at:], *more])
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("storewarden: error: ")
    assert str(config) in line
    assert not touched.exists()


# In the usual place: in a mount namespace that has a small /etc of its own.

_SETTLED = """
set -e
for file in passwd group nsswitch.conf ld.so.cache; do
    [ ! -e /etc/$file ] || cp /etc/$file "$1/"
done
echo builders:x:4321:nobody >> "$1/group"
mount --bind "$1" /etc
shift
exec "$@"
"""
only_root = pytest.mark.skipif(
    not ROOT or not os.path.exists("/usr/bin/unshare"), reason="only root can mount its own /etc"
)


def settled(
    desk: Desk, command: list[str], text: str, *, mode: int = 0o644, user: int = 0, given: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run it where that is the configuration, as that user."""
    etc = Path(desk.directory, "etc")
    (etc / "storewarden").mkdir(parents=True, exist_ok=True)
    config = etc / "storewarden/config.toml"
    config.write_text(text, encoding="utf-8")
    config.chmod(mode)
    os.chmod(etc, 0o755)  # noqa: S103 - as /etc is
    words = command if user == 0 else ["setpriv", f"--reuid={user}", "--clear-groups", *command]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _SETTLED, "sh", str(etc), *words],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@only_root
def test_the_usual_one_is_read_without_being_named(desk: Desk) -> None:
    done = settled(desk, [*PROGRAM, "scan", "--yes"], text_for(desk))
    assert done.returncode == 0, done.stderr
    assert desk.locks() == 0
    shown = settled(desk, [*PROGRAM, "audit", "show"], text_for(desk))
    assert len(shown.stdout.splitlines()) == 2


@only_root
def test_its_build_group_is_the_one_that_owners_are_compared_with(desk: Desk) -> None:
    Path(desk.place.state_dir, "userpool2").rmdir()
    path = desk.place.path(desk.place.invent("hello").base_name)
    os.mkdir(path)
    os.chown(path, 65534, 4321)
    command = [*PROGRAM, "scan", "--json"]
    for given, group, known in (
        ([], "builders", True),
        ([], "none", False),
        (["--build-group", "builders"], "none", True),
    ):
        text = text_for(desk, build_group=group)
        done = settled(desk, [*command, *given], text)
        kinds = {one["path"]: one["kind"] for one in report(done)["findings"]}
        assert (kinds[path] == "output") is known, (given, group, kinds)


@only_root
@pytest.mark.parametrize("loose", ["file", "directory"])
def test_root_does_not_read_one_that_others_can_write(desk: Desk, loose: str) -> None:
    command = [*PROGRAM, "scan", "--yes"]
    if loose == "directory":
        place = Path(desk.directory, "etc/storewarden")
        place.mkdir(parents=True)
        place.chmod(0o777)
    mode = 0o666 if loose == "file" else 0o644
    done = settled(desk, command, text_for(desk), mode=mode)
    assert (done.returncode, done.stdout, desk.locks()) == (2, "", 1)
    assert f"root does not read {DEFAULT_CONFIG}: others than root can change" in done.stderr
    named = settled(desk, [*command, "--config", DEFAULT_CONFIG], text_for(desk), mode=mode)
    assert (named.returncode, desk.locks()) == (0, 0)


@only_root
def test_one_that_is_closed_to_this_user_is_noted_and_the_defaults_hold(desk: Desk) -> None:
    for place in (desk.place.store_dir.path, desk.place.state_dir):
        for directory, _, _ in os.walk(place):
            os.chmod(directory, 0o755)  # noqa: S103 - for another user to look at
    for above in Path(desk.place.store_dir.path).parents:
        if above.stat().st_uid == os.geteuid() and len(above.parts) > 2:
            above.chmod(above.stat().st_mode | 0o055)
    words = shlex.split(
        f"--store-dir {desk.place.store_dir.path} --state-dir {desk.place.state_dir}"
    )
    done = settled(
        desk, [*PROGRAM, "scan", "--dry-run", *words], 'mood = "x"\n', mode=0o600, user=65534
    )
    assert f"cannot read the configuration {DEFAULT_CONFIG}: permission denied" in done.stderr
    assert "the defaults hold here, but for what options say" in done.stderr
    assert f"\n{desk.place.store_dir.path}/" in f"\n{done.stdout}"


@only_root
def test_one_that_is_wrong_does_not_end_who_writes_a_log(desk: Desk) -> None:
    log = f"{DENIED % '/nix/store/' + '0' * 32 + '-a'}\n"
    done = settled(desk, [*PROGRAM, "explain", "-"], "mood = 1\n", given=log)
    assert (done.returncode, done.stdout) == (1, log)
    assert "unknown key 'mood'" in done.stderr
