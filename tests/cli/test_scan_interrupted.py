# SPDX-License-Identifier: MIT
"""Ctrl-C, a reader that goes away, and a person at a terminal."""

import os
import pty
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import PROGRAM, ROOT, Desk, open_desk, run, strand_lock, typed, typed_by_nobody
from stand_in import ends, write_answering_nix, write_program
from storewarden.audit_reading import verify
from storewarden.throwaway import ThrowawayStore
from sweeps import own_place
from terminal import without_colours


@pytest.fixture
def desk(place: ThrowawayStore, tmp_path: Path) -> Desk:
    """A store with 40 lock files that could be removed, and a stand-in for Nix."""
    for number in range(40):
        strand_lock(place, f"many-{number}")
    return open_desk(place, tmp_path)


def test_interrupted_while_nix_hangs_nothing_is_removed_and_nix_is_ended(
    desk: Desk, tmp_path: Path
) -> None:
    write_program(
        desk.nix,
        f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid\nexec sleep 300\n",
    )
    with subprocess.Popen(
        desk.scan("--yes"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        while not (tmp_path / "pid").exists():
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        try:
            out, err = child.communicate(timeout=30)
        finally:
            child.kill()
    assert (child.returncode, out) == (130, "")
    assert err == "storewarden: error: interrupted; nothing was removed\n"
    assert desk.locks() == 40
    assert ends(int((tmp_path / "pid").read_text()))


def _interrupting_nix(desk: Desk, times: int) -> None:
    """One that interrupts the scan when it is asked for the second time: by the scan's helper."""
    write_answering_nix(f"{desk.nix}-answers")
    scan = "$(ps -o ppid= -p $PPID)"
    interrupt = f"kill -INT {scan}; sleep 0.2; " * times
    counter = f"{desk.nix}-asked"
    write_program(
        desk.nix,
        f'if [ -e {counter} ]; then {interrupt}fi\n: > {counter}\nexec {desk.nix}-answers "$@"\n',
    )


def test_interrupted_once_the_batch_at_work_is_ended_and_the_rest_left(desk: Desk) -> None:
    _interrupting_nix(desk, times=1)
    done = run(desk.scan("--yes"))
    assert done.returncode == 130
    assert done.stderr.endswith("interrupted; 16 removed (0 B freed), 24 not touched\n")
    assert desk.locks() == 24
    assert verify(desk.audit_log).problem == ""
    assert verify(desk.audit_log).open_intents == 0


def test_interrupted_twice_it_ends_at_once_and_the_next_run_goes_on(desk: Desk) -> None:
    _interrupting_nix(desk, times=2)
    done = run(desk.scan("--yes"))
    assert done.returncode == 130
    assert "the next run finishes what was begun; told so far: 0 removed" in done.stderr
    assert desk.locks() == 40
    write_answering_nix(desk.nix)
    assert run(desk.scan("--yes")).returncode == 0
    assert desk.locks() == 0
    found = verify(desk.audit_log)
    assert (found.problem, found.open_intents) == ("", 0)


@pytest.mark.parametrize("words", [("--yes",), ("--yes", "--json"), ("--dry-run",)])
def test_a_reader_that_goes_away_does_no_harm(desk: Desk, words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            desk.scan(*words), stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60
        )
    finally:
        os.close(writing)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert desk.locks() == (0 if "--yes" in words else 40)
    if "--yes" in words:
        assert verify(desk.audit_log).open_intents == 0


def at_a_terminal(
    command: list[str], answer: bytes = b"", signal_number: int = 0, **variables: str
) -> tuple[int, str]:
    """Run it at a terminal and answer its question so; its exit code, and all that was shown."""
    own, terminal = pty.openpty()
    shown = b""
    surroundings = {**os.environ, **variables}
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=surroundings
    ) as child:
        os.close(terminal)
        asked = False
        try:
            while more := _read(own):
                shown += more
                if not asked and b"[y/N] " in shown:
                    asked = True
                    os.write(own, answer)
                    if signal_number:
                        time.sleep(0.3)  # between the question and its read it would be lost
                        child.send_signal(signal_number)
            return child.wait(timeout=30), shown.decode()
        finally:
            child.kill()
            os.close(own)


def _read(terminal: int) -> bytes:
    """What comes next from a terminal; nothing where nobody is there any more, or for too long."""
    ready, _, _ = select.select([terminal], [], [], 30)
    try:
        return os.read(terminal, 65536) if ready else b""
    except OSError:  # how Linux tells that the other side was closed
        return b""


@pytest.mark.parametrize("answer", [b"y\n", b"YES\n", b" y \n"])
def test_at_a_terminal_a_yes_removes(desk: Desk, answer: bytes) -> None:
    code, shown = at_a_terminal(desk.scan(), answer)
    assert code == 0
    assert "Remove these 40? [y/N] " in shown
    assert desk.locks() == 0


@pytest.mark.parametrize("answer", [b"n\n", b"\n", b"yep\n", b"--yes\n"])
def test_at_a_terminal_anything_else_keeps(desk: Desk, answer: bytes) -> None:
    code, shown = at_a_terminal(desk.scan(), answer)
    assert (code, desk.locks()) == (0, 40)
    assert shown.endswith("storewarden: nothing was removed\r\n")
    assert "to remove" not in shown, "nobody is told to do what they have just refused"


def test_at_a_terminal_ctrl_c_keeps(desk: Desk) -> None:
    code, shown = at_a_terminal(desk.scan(), signal_number=signal.SIGINT)
    assert (code, desk.locks()) == (130, 40)
    assert "Traceback" not in shown
    last = without_colours(shown).splitlines()[-1]
    assert last == "storewarden: error: interrupted; nothing was removed"


def test_at_a_terminal_a_dry_run_does_not_ask(desk: Desk) -> None:
    code, shown = at_a_terminal(desk.scan("--dry-run"), b"y\n")
    assert (code, desk.locks()) == (0, 40)
    assert "[y/N]" not in shown


@pytest.mark.parametrize("word", ["no", "0"])
def test_who_does_not_want_to_be_asked_is_told_the_command_instead(desk: Desk, word: str) -> None:
    code, shown = at_a_terminal(desk.scan(), b"y\n", STOREWARDEN_ASK=word)
    assert (code, desk.locks(), "[y/N]" in shown) == (0, 40, False)
    assert f"to remove what can go: {typed('sudo storewarden scan')}" in " ".join(shown.split())


def test_a_wish_about_asking_that_is_not_understood_is_wrong_use(desk: Desk) -> None:
    done = run(desk.scan("--yes"), STOREWARDEN_ASK="perhaps")
    assert (done.returncode, desk.locks()) == (2, 40)
    assert done.stderr == (
        "storewarden: error: STOREWARDEN_ASK is 'perhaps', and means yes or no\n"
    )


@pytest.fixture
def of_root() -> Iterator[Desk]:
    """A store of root's that anybody may look at, where `sudo` only says what it is to run."""
    if not ROOT:
        pytest.skip("only root can be another user")
    with tempfile.TemporaryDirectory(prefix="storewarden-of-root-") as directory:
        os.chmod(directory, 0o755)  # noqa: S103 - another user looks at it
        place = own_place(directory)
        place.add_valid("valid")
        strand_lock(place, "dead")
        desk = open_desk(place, Path(directory))
        write_program(f"{directory}/bin/sudo", 'echo "as root: $*"; exit 7\n')
        yield desk
        place.close()


def as_nobody(desk: Desk, *words: str) -> list[str]:
    """The command that scans that store, run by another user, who finds that `sudo` first."""
    path = f"{desk.directory}/bin:/usr/bin:/bin"
    become = [PROGRAM[0], "-I", "-S", "-c", _AS_NOBODY, path]
    return [*become, *desk.scan(*words)]


_AS_NOBODY = """
import os, sys
os.setgroups([]), os.setgid(65534), os.setuid(65534), os.chdir("/")
os.environ.update(PATH=sys.argv[1])
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_who_may_not_remove_is_offered_the_very_command_by_sudo(of_root: Desk) -> None:
    for words, answer in (((), b"y\n"), (("--yes",), b"")):
        code, shown = at_a_terminal(as_nobody(of_root, *words), answer)
        assert (code, of_root.locks()) == (7, 1), "it ends as that command does"
        assert ("[y/N]" in shown) == bool(answer)
        lines = " ".join(shown.split())
        command = typed_by_nobody("sudo storewarden scan --yes")
        assert f"running: {command} --config /dev/null" in lines
        became = command.removeprefix("sudo ")
        assert f"as root: {became} --config /dev/null --min-age 0s" in lines
    code, shown = at_a_terminal(as_nobody(of_root), b"n\n")
    assert (code, "as root:" in shown, "nothing was removed" in shown) == (0, False, True)


@pytest.mark.parametrize(("words", "answer"), [((), b"y\n"), (("--yes",), b"")])
def test_who_is_not_answered_by_nix_is_offered_the_same_by_sudo(
    of_root: Desk, words: tuple[str, ...], answer: bytes
) -> None:
    write_program(of_root.nix, "echo you are not allowed to connect >&2; exit 1\n")
    code, shown = at_a_terminal(as_nobody(of_root, *words), answer)
    assert (code, of_root.locks(), "[y/N]" in shown) == (7, 1, bool(answer))
    lines = " ".join(shown.split())
    command = typed_by_nobody("sudo storewarden scan --yes")
    assert f"running: {command} --config /dev/null" in lines
    assert f"as root: {command.removeprefix('sudo ')} --config /dev/null" in lines


def test_who_is_not_answered_by_nix_and_does_not_want_sudo_is_told_why_once(of_root: Desk) -> None:
    write_program(of_root.nix, "echo you are not allowed to connect >&2; exit 1\n")
    for words, answer in (((), b"n\n"), (("--dry-run",), b"")):
        code, shown = at_a_terminal(as_nobody(of_root, *words), answer)
        assert (code, "as root:" in shown, "[y/N]" in shown) == (3, False, bool(answer))
        lines = " ".join(shown.split())
        command = typed_by_nobody("sudo storewarden scan --yes")
        assert lines.count(f"root may be answered by Nix: {command} --config /dev/null") == 1
        assert lines.count("Nix could not be asked, so nothing can be removed") == 1


def test_where_nobody_could_type_a_password_sudo_is_not_run(of_root: Desk) -> None:
    done = run(as_nobody(of_root, "--yes"))
    assert (done.returncode, "as root:" in done.stdout) == (4, False)
    command = typed_by_nobody("sudo storewarden scan")
    told = " ".join(done.stderr.split())
    assert f"to remove without it, as root and outside of any sandbox: {command}" in told
    looked = run(as_nobody(of_root))
    assert (looked.returncode, "as root:" in looked.stdout) == (0, False)


@pytest.mark.skipif(not ROOT, reason="only root has another user's store")
def test_root_is_not_offered_to_become_root(desk: Desk) -> None:
    for path in (desk.place.store_dir.path, *map(desk.place.path, desk.names())):
        os.chown(path, 4321, 4321)
    code, shown = at_a_terminal(desk.scan(), b"y\n")
    assert (code, "[y/N]" in shown) == (0, False)


def test_what_is_longer_than_the_terminal_goes_to_the_pager_and_what_is_short_does_not(
    desk: Desk,
) -> None:
    kept = f"{desk.directory}/paged"
    write_program(f"{desk.directory}/pager", f'echo "$1 $LESS" > {kept}-told; exec cat > {kept}\n')
    own = f"{desk.directory}/pager -x"
    code, shown = at_a_terminal(desk.scan("--dry-run", "--all"), PAGER=own, TERM="xterm")
    assert (code, "40 found" in shown) == (0, False)
    paged = without_colours(Path(kept).read_text(encoding="utf-8"))
    assert paged.startswith("40 found in ")
    assert len([line for line in paged.splitlines() if line.startswith("/")]) == 40
    assert Path(f"{kept}-told").read_text(encoding="utf-8") == "-x FRX\n"
    os.unlink(kept)
    code, shown = at_a_terminal(desk.scan("--dry-run", "--quiet"), PAGER=own, TERM="xterm")
    assert (code, "40 found" in shown, os.path.exists(kept)) == (0, True, False)
    code, shown = at_a_terminal(desk.scan("--all"), b"n\n", PAGER=own, TERM="xterm")
    assert (code, "40 found" in shown, os.path.exists(kept)) == (0, True, False), "it asks below"
    code, shown = at_a_terminal(desk.scan("--dry-run", "--all"), PAGER="/absent", TERM="xterm")
    assert (code, "40 found" in shown) == (0, True)


def test_under_sudo_no_pager_is_chosen_by_who_may_become_root(desk: Desk) -> None:
    os.makedirs(f"{desk.directory}/bin2")
    told = f"{desk.directory}/told"
    for name in ("less", "own"):
        body = f'echo "{name} $LESSSECURE" >> {told}; exec cat\n'
        write_program(f"{desk.directory}/bin2/{name}", body)
    path = f"{desk.directory}/bin2:{os.environ['PATH']}"
    command = desk.scan("--dry-run", "--all")
    at_a_terminal(command, PATH=path, PAGER="own", TERM="xterm", SUDO_UID="1000")
    at_a_terminal(command, PATH=path, PAGER="own", TERM="xterm")
    assert Path(told).read_text(encoding="utf-8") == "less 1\nown \n"
