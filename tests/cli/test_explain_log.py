# SPDX-License-Identifier: MIT
"""`storewarden explain -` and `--log`: what goes where and when, what is told, and how it ends.

Signals, closed and full streams do no harm to what is passed through.
"""

import os
import re
import select
import signal
import subprocess
from pathlib import Path

import pytest

from command import PROGRAM, SECONDS, run, typed
from json_documents import checked
from quoted import Quoted, known

EXPLAIN = [*PROGRAM, "explain"]
WEDGED = b"mkdir: cannot create directory '/nix/store/%s-a': Permission denied" % (b"0" * 32)
HOSTILE = WEDGED + b"\x1b]0;owned\x07\x1b[2J \xff\xe2\x80\xae: Permission denied\n"


def explained(log: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run it with that log on stdin."""
    command = [*EXPLAIN, *(words or ("-",))]
    return subprocess.run(command, input=log, capture_output=True, timeout=SECONDS, check=False)


def started(stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """It, waiting for a log."""
    pipe = subprocess.PIPE
    return subprocess.Popen([*EXPLAIN, "-"], stdin=pipe, stdout=stdout, stderr=pipe)


def shown(descriptor: int) -> bytes:
    """What comes within a few seconds."""
    assert select.select([descriptor], [], [], 20)[0]
    return os.read(descriptor, 65536)


@pytest.mark.parametrize(
    "log",
    [b"", b"no end", bytes(range(256)) * 300, b"\r\n\r", b"x" * 1000000, HOSTILE],
    ids=["nothing", "no line end", "binary", "line ends", "a long line", "hostile"],
)
def test_the_log_goes_to_stdout_and_the_rest_to_stderr(log: bytes) -> None:
    done = explained(log)
    assert done.stdout == log
    assert b"known failure" in done.stderr


def test_what_is_shown_of_a_log_cannot_write_to_the_terminal() -> None:
    told = explained(HOSTILE).stderr.decode("ascii")
    assert all(line.isprintable() for line in told.split("\n"))
    assert r"\x1b]0;owned" not in told
    assert r"\ufffd\u202e" in told


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_line_that_is_drawn_is_told_in_ascii_whatever_the_terminal_takes(encoding: str) -> None:
    path = f"/nix/store/{'0' * 32}-a"
    log = f"\u2503 error: path \u2018{path}\u2019 is not valid\n"
    done = subprocess.run(
        [*EXPLAIN, "-"],
        input=log.encode(),
        capture_output=True,
        timeout=SECONDS,
        check=False,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding},
    )
    assert (done.returncode, done.stdout) == (0, log.encode())
    assert f"    line 1: | error: path '{path}' is not valid\n" in done.stderr.decode("ascii")


@pytest.mark.parametrize("quoted", known()[::9], ids=str)
def test_cause_cure_and_where_it_is_known_from_are_told(quoted: Quoted, tmp_path: Path) -> None:
    text = quoted.text
    (tmp_path / "log").write_text(text)
    done = run([*EXPLAIN, "--log", f"{tmp_path}/log"])
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("    line ", "    why: ", "    what to do:", "    see: https://github.com/"):
        assert part in done.stdout
    assert "1 known failure in " in done.stdout
    assert "PATHS" not in done.stdout


def test_a_path_in_a_command_is_quoted_for_the_shell() -> None:
    path = f"/nix/store/{'0' * 32}-a?b=c"
    told = explained(f"error: path '{path}' is not valid\n".encode()).stderr.decode()
    assert f"storewarden explain '{path}'\n" in told


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("/nix/store/trash/a b/lib", "ls -ld '/nix/store/trash/a b/lib'"),
        ("/nix/store/trash/a", "ls -ld /nix/store/trash/a"),
        ("/nix/store/trash/a\x1b[2J\u00e9", ""),
        ("/srv/store/trash/a", ""),
    ],
)
def test_a_file_that_the_log_names_stands_in_a_command_and_else_no_command_is_shown(
    file: str, command: str
) -> None:
    told = explained(f"error: chmod '{file}': Operation not permitted\n".encode()).stderr.decode()
    assert "Whose is what the line names?" in told
    commands = [line.strip() for line in told.splitlines() if "ls -ld" in line]
    assert commands == ([command] if command else [])
    assert not re.search(r"\bPATHS?\b", told)


def test_a_path_that_the_next_line_names_stands_in_a_command() -> None:
    log = (
        "error: Trying to register a realisation of 'x!out', but we already have another one"
        f" locally.\n  Local:  /nix/store/{'0' * 32}-a\n  Remote: /nix/store/{'1' * 32}-a\n"
    )
    told = explained(log.encode()).stderr.decode()
    assert f" nix-store --delete /nix/store/{'0' * 32}-a\n" in told
    assert f"{'1' * 32}" not in told
    told = explained(log.replace("Local:", "Other:").encode()).stderr.decode()
    assert "delete the path that is called Local" in " ".join(told.split())
    assert "nix-store --delete" not in told


def test_what_is_advised_for_another_store_is_for_that_store(tmp_path: Path) -> None:
    words = ("-", "--store-dir", "/srv/store", "--state-dir", "/srv/state")
    path = f"/srv/store/{'0' * 32}-a"
    told = explained(f"error: path '{path}' is not valid\n".encode(), *words).stderr.decode()
    nix = "env NIX_STORE_DIR=/srv/store NIX_STATE_DIR=/srv/state nix-store"
    assert f" {nix} --realise {path}\n" in told
    assert f" {typed(f'storewarden explain {path}')} {' '.join(words[1:])}\n" in told
    busy = "waiting for the big garbage collector lock\n"
    assert (
        f" {typed('sudo lsof')} /srv/state/gc.lock\n"
        in explained(busy.encode(), *words).stderr.decode()
    )
    (tmp_path / "log").write_text(f"error: builder for '{path}.drv' failed\n")
    done = run([*EXPLAIN, "--log", f"{tmp_path}/log", *words[1:]])
    assert f" {nix.removesuffix('-store')} log {path}.drv\n" in done.stdout


def test_the_exit_code_says_whether_anything_is_known() -> None:
    nothing = explained(b"error: builder for '/nix/store/%s-a.drv' failed;\n" % (b"0" * 32))
    assert nothing.returncode == 1
    assert b"no known failure in 1 line: nothing can be said about this log\n" in nothing.stderr
    assert b"nix log /nix/store/" in nothing.stderr
    assert explained(WEDGED).returncode == 0


@pytest.mark.parametrize("words", [[], ["-", "-"], ["-", "--log", "x"], ["-", "/nix/store/x"]])
def test_what_is_to_be_explained_must_be_said_once(words: list[str]) -> None:
    done = run([*EXPLAIN, *words])
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: explain what?" in done.stderr


@pytest.mark.parametrize("path", ["/absent", "/"])
def test_a_log_that_cannot_be_read_is_an_error(path: str) -> None:
    done = run([*EXPLAIN, "--log", path])
    assert (done.returncode, done.stdout) == (3, "")
    assert f"error: cannot read the log {path}: " in done.stderr


def test_a_closed_stdin_is_an_error() -> None:
    done = run(["sh", "-c", 'exec "$@" <&-', "sh", *EXPLAIN, "-"])
    assert done.returncode == 3
    assert "error: cannot read the log from stdin: " in done.stderr


def test_json_is_all_that_stdout_has() -> None:
    done = explained(HOSTILE, "-", "--json")
    document = checked(done.stdout, "explain", "-")
    (failure,) = document.pop("failures")
    assert document == {"version": 1, "lines": 1, "possible": [], "paths": []}
    assert done.stderr == b""
    assert failure["name"] == "output-denied"
    assert failure["paths"] == [f"/nix/store/{'0' * 32}-a"]
    assert (failure["lineNumber"], failure["times"]) == (1, 1)
    assert failure["issues"][0] == "https://github.com/NixOS/nix/issues/13703"
    assert {"words", "command"} == failure["steps"][0].keys()
    assert failure.keys() == {
        *("name", "title", "cause", "tell", "steps", "versions", "issues"),
        *("line", "lineNumber", "times", "paths"),
    }


def test_each_piece_passes_at_once_and_the_explanation_waits_for_the_end() -> None:
    with started() as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        for piece in (b"building", b"...", WEDGED):
            process.stdin.write(piece)
            process.stdin.flush()
            assert shown(process.stdout.fileno()) == piece
        assert select.select([process.stderr], [], [], 0)[0] == []
        process.stdin.close()
        assert b"known failure" in process.stderr.read()


def test_it_ends_with_its_reader_so_that_the_writer_learns_of_it() -> None:
    reading, writing = os.pipe()
    with started(stdout=writing) as process:
        os.close(writing)
        os.close(reading)
        assert process.stdin
        assert process.stderr
        process.stdin.write(WEDGED)
        process.stdin.flush()
        assert b"1 known failure" in process.stderr.read()
        assert process.wait(SECONDS) == 0
        with pytest.raises(BrokenPipeError):
            os.write(process.stdin.fileno(), b"x")


def test_after_ctrl_c_the_end_of_the_log_is_still_passed_on_and_explained() -> None:
    with started() as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"building\n")
        process.stdin.flush()
        assert shown(process.stdout.fileno()) == b"building\n"
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(WEDGED, SECONDS)
    assert out == WEDGED
    assert b"1 known failure in 2 lines" in told
    assert process.returncode == 130


def test_a_second_ctrl_c_ends_it_at_once() -> None:
    with started() as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(b"building\n")
        process.stdin.flush()
        assert shown(process.stdout.fileno())
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            select.select([], [], [], 0.2)
        assert b"interrupted" in process.stderr.read()
    assert process.returncode == 130


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_under_stdout_does_not_stop_the_build() -> None:
    with open("/dev/full", "wb") as full, started(stdout=full.fileno()) as process:
        _, told = process.communicate(b"x" * 1000000 + b"\n" + WEDGED, SECONDS)
    assert process.returncode == 5
    assert b"could not be passed on whole: no space left on device" in told
    assert b"1 known failure" in told


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc tells of memory here")
def test_a_long_log_takes_no_more_memory_than_a_short_one() -> None:
    with started(stdout=subprocess.DEVNULL) as process:
        assert process.stdin
        for _ in range(300):  # 306 MB
            process.stdin.write(b"gcc -O2 -c foo.c -o foo.o\n" * 20000 + b"x" * 500000)
        # Not what wait4() tells: that counts what the tests' own process had when it forked.
        with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
            [peak] = [line.split()[1] for line in status if line.startswith("VmHWM:")]
        process.stdin.close()
        assert process.wait(SECONDS) == 1
    assert int(peak) < 100 * 1024
