# SPDX-License-Identifier: MIT
"""A command is run as if nobody looked on: its output, its end, its signals, its terminal."""

import contextlib
import fcntl
import os
import select
import shlex
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from command import PROGRAM, SECONDS

SIZE = struct.pack("4H", 33, 77, 0, 0)


def run(*words: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    command = [*PROGRAM, "run", "--", *words]
    return subprocess.run(command, input=given, capture_output=True, check=False, timeout=SECONDS)


def shell(script: str, *words: str) -> Sequence[str]:
    return ["sh", "-c", script, "sh", *words]


@contextlib.contextmanager
def started(*words: str) -> "Iterator[subprocess.Popen[bytes]]":
    """It, once the command has said "ready" on stdout."""
    pipe = subprocess.PIPE
    command = [*PROGRAM, "run", "--", *words]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        yield process


@pytest.mark.parametrize("code", [0, 1, 5, 77, 255])
def test_its_exit_code_is_the_commands(code: int) -> None:
    done = run(*shell(f"exit {code}"))
    assert done.returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE])
def test_it_ends_by_the_signal_that_ended_the_command(number: signal.Signals) -> None:
    assert run(*shell(f"kill -{number.value} $$")).returncode == -number


def test_what_the_command_prints_goes_where_it_went_and_nothing_is_added() -> None:
    done = run(*shell("printf 'a\\r\\n\\377'; printf 'b\\033[0m' >&2"))
    assert (done.stdout, done.stderr) == (b"a\r\n\xff", b"b\x1b[0m")


def test_arguments_come_as_they_are() -> None:
    done = run("printf", "%s|", "--json", "--", "-n", "")
    assert done.stdout == b"--json|--|-n||"


def test_where_both_streams_are_one_file_their_order_is_kept() -> None:
    script = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo o$i; echo e$i >&2; done"
    command = [*PROGRAM, "run", "--", *shell(script)]
    pipe, out = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run(command, stdout=pipe, stderr=out, check=False, timeout=SECONDS)
    expected = "".join(f"o{i}\ne{i}\n" for i in range(1, 201))
    assert done.stdout.decode() == expected


def test_its_standard_input_is_the_commands() -> None:
    assert run("cat", given=b"x" * 300000).stdout == b"x" * 300000


def test_a_command_that_is_not_there_or_cannot_run_is_told_as_by_a_shell() -> None:
    absent, no_program, nothing = run("/nonexistent/x"), run("/"), run("")
    assert (absent.returncode, no_program.returncode, nothing.returncode) == (127, 126, 127)
    assert nothing.stderr == b"storewarden: error: cannot run '': no such file or directory\n"
    assert absent.stderr == (
        b"storewarden: error: cannot run /nonexistent/x: no such file or directory\n"
    )


def test_it_does_not_wait_for_what_the_command_left_running() -> None:
    began = time.monotonic()
    with started(*shell("sleep 60 >/dev/null & echo $! >&2; echo ready")) as process:
        assert process.wait(SECONDS) == 0
        assert process.stderr
        os.kill(int(process.stderr.readline()), signal.SIGKILL)
        assert process.stderr.read() == b"", "whoever reads stderr waits no longer than for it"
    assert time.monotonic() - began < 30


def test_it_does_not_wait_for_what_prints_on_after_the_commands_end() -> None:
    chat = "(while echo tick >&2; do sleep 0.01; done) >/dev/null & echo ready"
    began = time.monotonic()
    with started(*shell(chat)) as process:
        assert process.wait(SECONDS) == 0
        assert time.monotonic() - began < 10
        assert process.stderr
        process.stderr.close()  # which ends it


def test_what_the_command_left_running_can_go_on_printing(tmp_path: Path) -> None:
    later = f"(until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo late >&2; echo well >&2)"
    with started(*shell(f"{later} >/dev/null & echo first >&2; echo ready")) as process:
        assert process.wait(SECONDS) == 0
        (tmp_path / "go").touch()
        assert process.stderr
        assert process.stderr.read() == b"first\nlate\nwell\n"


def test_it_holds_no_stream_open_that_what_was_left_running_has_closed() -> None:
    with started(*shell("sleep 60 >/dev/null & echo $! >&2; echo ready")) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.read() == b""
        os.kill(int(process.stderr.readline()), signal.SIGKILL)


def counting(number: signal.Signals) -> str:
    """A script that counts how often it is sent that, and for a second waits for more."""
    return (
        f"n=0; trap 'n=$((n + 1)); echo got' {number.value}; echo ready; i=0; "
        "while [ $i -lt 20 ]; do i=$((i + 1)); sleep 0.05; done; exit $((10 + n))"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_that_it_is_sent_reaches_the_command_once(number: signal.Signals) -> None:
    with started(*shell(counting(number))) as process:
        process.send_signal(number)
        assert process.wait(SECONDS) == 11


def test_a_failure_that_a_signal_asked_for_is_not_explained() -> None:
    with started(*shell("trap 'exit 1' TERM; echo ready; while :; do sleep 0.05; done")) as process:
        process.terminate()
        out, told = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, told) == (1, b"", b"")


def test_a_reader_of_stderr_that_has_gone_is_noticed_by_the_command() -> None:
    with started(*shell("echo ready; while echo x >&2; do :; done; exit 3")) as process:
        assert process.stderr
        process.stderr.close()
        assert process.wait(SECONDS) in {3, -signal.SIGPIPE}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_under_stderr_does_not_stop_the_command() -> None:
    with open("/dev/full", "wb") as full:
        command = [*PROGRAM, "run", "--", *shell("echo x >&2; echo y >&2 || exit 9; echo out")]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=full, check=False, timeout=SECONDS
        )
    assert (done.returncode, done.stdout) == (0, b"out\n")


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_where_a_stream_is_closed_the_command_still_ends_as_it_ends(closed: str) -> None:
    words = shlex.join([*PROGRAM, "run", "--", "sh", "-c", "echo out; echo err >&2; exit 6"])
    done = subprocess.run(
        ["sh", "-c", f"{words} {closed}"], capture_output=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 6
    assert (done.stdout == b"out\n") == ("1>" not in closed)
    assert (b"err\n" in done.stderr) == ("2>" not in closed)


def test_a_signal_that_was_ignored_from_the_start_is_so_by_the_command_too(tmp_path: Path) -> None:
    script = f"echo ready; until [ -e {tmp_path}/go ]; do sleep 0.05; done; exit 8"
    pipe = subprocess.PIPE
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *PROGRAM, "run", "--", *shell(script)]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        (tmp_path / "go").touch()
        told = process.stderr.read()
        assert process.wait(SECONDS) == 8
    assert b"it is not run again" in told, "it was not told to end, so its failure is explained"


def on_terminal(script: str, then: str = "") -> "tuple[subprocess.Popen[bytes], int]":
    """It in a session of its own, on a terminal of its own, of which we have the other side.

    The terminal hangs up when it ends, or when the shell has done what is said with `then`, too.
    """
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, SIZE)
    name = os.ttyname(theirs)
    # To open it makes it the controlling one of a session without.
    words = shlex.join([*PROGRAM, "run", "--", "sh", "-c", script])
    line = f"exec <{name} >{name} 2>&1; " + (f"{words}; {then}" if then else f"exec {words}")
    process = subprocess.Popen(["sh", "-c", line], start_new_session=True, pass_fds=(theirs,))
    os.close(theirs)
    return process, ours


def seen_until(terminal: int, wanted: bytes) -> bytes:
    seen = b""
    until = time.monotonic() + SECONDS
    while wanted not in seen:
        assert time.monotonic() < until, seen
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 65536)
    return seen


def test_on_a_terminal_the_command_has_one_too_of_the_same_size() -> None:
    process, terminal = on_terminal(
        "for fd in 0 1 2; do test -t $fd && echo tty$fd; done; stty size <&2; echo done. >&2"
    )
    seen = seen_until(terminal, b"done.")
    assert process.wait(SECONDS) == 0
    os.close(terminal)
    assert seen.replace(b"\r\n", b"\n").split() == [
        b"tty0",
        b"tty1",
        b"tty2",
        b"33",
        b"77",
        b"done.",
    ]


def test_on_a_terminal_what_the_command_left_running_can_go_on_printing() -> None:
    process, terminal = on_terminal("(sleep 2; echo late >&2) & exit 3", "echo $? >&2; read _")
    seen_until(terminal, b"3")
    seen_until(terminal, b"late")
    os.write(terminal, b"\n")
    assert process.wait(SECONDS) == 0
    os.close(terminal)


def test_another_size_of_the_terminal_is_told_to_the_command() -> None:
    process, terminal = on_terminal(
        'trap "stty size <&2; exit 0" WINCH; echo ready; while :; do sleep 0.05; done'
    )
    seen_until(terminal, b"ready")
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 44, 111, 0, 0))
    seen_until(terminal, b"44 111")
    assert process.wait(SECONDS) == 0
    os.close(terminal)


def test_ctrl_c_at_the_terminal_comes_to_the_command_once() -> None:
    process, terminal = on_terminal(counting(signal.SIGINT))
    seen_until(terminal, b"ready")
    os.write(terminal, b"\x03")
    seen_until(terminal, b"got")
    assert process.wait(SECONDS) == 11
    os.close(terminal)
