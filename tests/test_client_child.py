# SPDX-License-Identifier: MIT
"""A helper that the store's owner starts for one removal: it ends with it, whatever happens."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from command import Desk, open_desk, run, strand_lock
from stand_in import ends, write_answering_nix, write_program
from storewarden import __file__ as package
from storewarden.audit_reading import read_records, verify
from storewarden.client import HelperUnavailableError, own_helper, request_for
from storewarden.config import Config
from storewarden.protocol import RemoveRequest, Status
from storewarden.store.entries import EntryKind, look
from storewarden.throwaway import ThrowawayStore

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows it in /proc")
BLOCKED = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def desk(place: ThrowawayStore, tmp_path: Path) -> Desk:
    """A store with 20 lock files that could be removed, so two batches, and a stand-in for Nix."""
    for number in range(20):
        strand_lock(place, f"many-{number}")
    return open_desk(place, tmp_path)


def when_the_helper_asks(desk: Desk, body: str) -> None:
    """Have Nix do that, $PPID being a helper, before it answers; the scan itself asks first."""
    write_answering_nix(f"{desk.nix}-answers")
    asked = f"{desk.nix}-asked"
    answer = f'exec {desk.nix}-answers "$@"\n'
    write_program(desk.nix, f"if [ -e {asked} ]; then\n{body}\nfi\n: > {asked}\n{answer}")


def config_of(desk: Desk) -> Config:
    """What the options of the desk's commands say."""
    place = desk.place
    return Config(
        store_dir=place.store_dir,
        state_dir=place.state_dir,
        nix=desk.nix,
        audit_log=desk.audit_log,
        min_age=0.0,
    )


def requests_of(desk: Desk) -> list[RemoveRequest]:
    """A request for each lock file."""
    fd = os.open(desk.place.store_dir.path, os.O_RDONLY)
    entries = [look(fd, name) for name in sorted(desk.names()) if name.endswith(".lock")]
    os.close(fd)
    return [request_for(entry, EntryKind.LOCK) for entry in entries if entry]


@pytest.fixture
def no_children() -> Iterator[None]:
    """Nothing is left of what this process has started."""
    before = psutil.Process().children()
    yield
    assert psutil.Process().children() == before


def assert_all_removed(desk: Desk) -> None:
    assert desk.locks() == 0
    assert (verify(desk.audit_log).problem, verify(desk.audit_log).open_intents) == ("", 0)


def test_one_helper_does_all_of_it_in_the_name_of_who_asks(desk: Desk, tmp_path: Path) -> None:
    when_the_helper_asks(desk, f"echo $PPID >> {tmp_path}/helpers")
    with subprocess.Popen(desk.scan("--yes"), stdout=subprocess.DEVNULL) as scan:
        assert scan.wait(60) == 0
    assert_all_removed(desk)
    helpers = (tmp_path / "helpers").read_text().split()
    assert (len(helpers), len({*helpers, str(scan.pid)})) == (2, 2)
    intents = [one for one in read_records(desk.audit_log) if one["action"] == "intent"]
    who = {"uid": os.getuid(), "pid": scan.pid, "via": "by hand"}
    assert [one["requester"] for one in intents] == [who] * 20


@needs_proc
def test_it_has_nothing_of_the_surroundings_of_who_started_it(desk: Desk, tmp_path: Path) -> None:
    told = f"{tmp_path}/told"
    seen = "tr '\\0' '\\n' < /proc/$PPID/environ; readlink /proc/$PPID/cwd; ps -o sid= -p $PPID"
    when_the_helper_asks(desk, f"readlink /proc/$PPID/fd/* > {told}-files; ({seen}) > {told}")
    odd = dict.fromkeys(("PYTHONSTARTUP", "NOTIFY_SOCKET", "LISTEN_PID", "TMPDIR"), str(tmp_path))
    with open(tmp_path / "secret", "w", encoding="ascii") as secret:
        done = subprocess.run(
            desk.scan("--yes"),
            check=False,
            capture_output=True,
            env={**os.environ, **odd},
            pass_fds=[secret.fileno()],
        )
    assert done.returncode == 0, done.stderr
    *variables, directory, session = Path(told).read_text().splitlines()
    # Python adds the last one by itself, for its own locale.
    assert set(variables) <= {"PATH=/usr/bin:/bin", "LC_CTYPE=C.UTF-8"}
    assert directory == "/"
    assert int(session) != os.getsid(0)
    assert secret.name not in Path(f"{told}-files").read_text().splitlines()


def test_it_is_killed_which_is_told_and_the_next_run_goes_on(desk: Desk) -> None:
    when_the_helper_asks(desk, "kill -KILL $PPID; sleep 0.2")
    done = run(desk.scan("--yes"))
    assert done.returncode == 130
    assert done.stderr == (
        "storewarden: error: interrupted: the helper was ended by signal 9; the next run finishes"
        " what it began; 0 removed (0 B freed), 20 not touched\n"
    )
    assert desk.locks() == 20
    write_answering_nix(desk.nix)
    assert run(desk.scan("--yes")).returncode == 0
    assert_all_removed(desk)


def test_who_started_it_is_killed_and_it_ends_what_it_was_asked_for(
    desk: Desk, tmp_path: Path
) -> None:
    scan = "$(ps -o ppid= -p $PPID)"
    when_the_helper_asks(desk, f"echo $PPID > {tmp_path}/pid; kill -KILL {scan}; sleep 0.2")
    assert run(desk.scan("--yes")).returncode == -signal.SIGKILL
    assert ends(int((tmp_path / "pid").read_text()))
    assert desk.locks() == 4
    assert (verify(desk.audit_log).problem, verify(desk.audit_log).open_intents) == ("", 0)


def test_told_to_end_it_ends_what_it_was_asked_for(desk: Desk) -> None:
    when_the_helper_asks(desk, "kill -TERM $PPID; sleep 0.2")
    done = run(desk.scan("--yes", "-v"))
    assert (done.returncode, done.stdout.count("\nremoved: ")) == (4, 16)
    assert "the helper ended before its answer did, with 0; the next run" in done.stderr
    assert (verify(desk.audit_log).problem, verify(desk.audit_log).open_intents) == ("", 0)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_streams_that_are_closed_or_full_do_no_harm(desk: Desk, closed: str) -> None:
    if "/dev/full" in closed and not os.path.exists("/dev/full"):
        pytest.skip("this system has no device that is always full")
    words = ["sh", "-c", f'exec "$@" {closed}', "sh", *desk.scan("--yes")]
    assert run(words).returncode == 0
    assert_all_removed(desk)


def test_signals_that_its_starter_keeps_from_itself_do_no_harm(desk: Desk) -> None:
    assert run([sys.executable, "-c", BLOCKED, *desk.scan("--yes")]).returncode == 0
    assert_all_removed(desk)


@pytest.mark.parametrize("umask", ["000", "022", "077", "777"])
def test_a_umask_does_no_harm_and_opens_no_log_to_others(desk: Desk, umask: str) -> None:
    words = ["sh", "-c", f'umask {umask}; exec "$@"', "sh", *desk.scan("--yes")]
    assert run(words).returncode == 0
    assert_all_removed(desk)
    assert os.stat(desk.audit_log).st_mode & 0o137 == 0


def test_a_log_whose_path_is_relative_is_that_of_who_asks(desk: Desk, tmp_path: Path) -> None:
    os.mkdir(tmp_path / "here")
    words = [*desk.scan("--yes"), "--audit-log", "log.jsonl"]
    subprocess.run(words, check=True, cwd=tmp_path / "here", stdout=subprocess.DEVNULL)
    assert desk.locks() == 0
    assert verify(f"{tmp_path}/here/log.jsonl").records == 40


def test_a_package_that_others_can_change_and_no_isolated_python_finds_is_used(
    desk: Desk, tmp_path: Path
) -> None:
    # As one that pip put below a home. Who runs the command runs that code already.
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(os.path.dirname(package), elsewhere / "storewarden")
    os.chmod(elsewhere, 0o777)  # noqa: S103 - the point of the test
    with open(elsewhere / "storewarden/helper/__main__.py", "a", encoding="utf-8") as file:
        file.write("print('from elsewhere', file=sys.stderr)\n")
    done = run(desk.scan("--yes"), PYTHONPATH=str(elsewhere))
    assert (done.returncode, done.stderr) == (0, "from elsewhere\n")
    assert_all_removed(desk)


@pytest.mark.usefixtures("no_children")
def test_whoever_listens_no_longer_has_it_leave_the_rest(desk: Desk) -> None:
    outcomes = own_helper(config_of(desk), "by a test")(requests_of(desk))
    assert next(outcomes).status is Status.REMOVED
    del outcomes
    left = requests_of(desk)
    assert 4 <= len(left) < 20
    assert verify(desk.audit_log).problem == ""
    again = own_helper(config_of(desk), "by a test")(left)
    # Of what it had begun it tells besides what became of that.
    removed = [outcome.base_name for outcome in again if outcome.status is Status.REMOVED]
    assert removed == [request.base_name for request in left]
    assert_all_removed(desk)


@pytest.mark.usefixtures("no_children")
def test_one_that_breaks_is_no_success_and_says_why_where_its_starter_would(
    desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    remove = own_helper(config_of(desk), "by a test", program="raise LookupError('broken')")
    with pytest.raises(HelperUnavailableError, match="ended before its answer did, with 1; the"):
        list(remove(requests_of(desk)))
    assert "LookupError: broken" in capfd.readouterr().err


@pytest.mark.usefixtures("no_children")
def test_one_that_cannot_be_started_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(HelperUnavailableError, match="cannot start /nowhere/python: no such file"):
        list(own_helper(config_of(desk), "by a test")(requests_of(desk)))
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
