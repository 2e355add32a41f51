# SPDX-License-Identifier: MIT
"""A real pseudo-terminal of a given size, and a command that runs at it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

SGR = re.compile(r"\x1b\[([0-9;]*)m")
ALLOWED = {"", "0", "1", *(str(number) for base in (30, 90) for number in range(base, base + 8))}
"""SGR parameters: off, bold, and the 16 basic colours of the text."""
PLAIN_VARIABLES = {
    name: value
    for name, value in os.environ.items()
    if name not in {"NO_COLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES", "TERM"}
}
XTERM = {"TERM": "xterm"}
SECONDS = 30


@dataclass(frozen=True, slots=True)
class Shown:
    """What a command showed; on a terminal with its own line ends."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Lines of its stdout, without colours."""
        return without_colours(self.out).splitlines()


def without_colours(text: str) -> str:
    """The same without SGR sequences."""
    return SGR.sub("", text)


def assert_only_basic_colours(text: str) -> None:
    """Nothing but bold and the 16 basic colours is used, and each line ends without any."""
    for line in text.splitlines():
        found = [parameters for sgr in SGR.findall(line) for parameters in sgr.split(";")]
        assert set(found) <= ALLOWED, line
        assert not found or found[-1] in {"", "0"}, line
    assert without_colours(text).replace("\n", "").replace("\r", "").isprintable()


@contextmanager
def terminal(columns: int) -> Iterator[tuple[int, int]]:
    """Descriptors of both sides: where a person sits, and where a program runs."""
    person, program = pty.openpty()
    fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        yield person, program
    finally:
        os.close(person)


def at(
    columns: int,
    command: list[str],
    *,
    streams: tuple[str, ...] = ("out", "err"),
    text: bytes | None = None,
    interrupt: bytes = b"",
    variables: Mapping[str, str] = XTERM,
) -> Shown:
    """Run it with those streams at a terminal of that width, and the others in pipes.

    It is interrupted once it has shown `interrupt` on stderr.
    """
    with terminal(columns) as (out, out_there), terminal(columns) as (err, err_there):
        places = {"out": out_there, "err": err_there}
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
            stdout=places["out"] if "out" in streams else subprocess.PIPE,
            stderr=places["err"] if "err" in streams else subprocess.PIPE,
            env={**PLAIN_VARIABLES, **XTERM, **variables},
        ) as child:
            os.close(out_there)
            os.close(err_there)
            if text is not None and child.stdin is not None:
                child.stdin.write(text)
                child.stdin.close()
            sources = {
                child.stdout.fileno() if child.stdout else out: "out",
                child.stderr.fileno() if child.stderr else err: "err",
            }
            try:
                shown = _all_of(sources, child, interrupt)
                code = child.wait(timeout=SECONDS)
            finally:
                child.kill()
    told = {name: content.decode().replace("\r\n", "\n") for name, content in shown.items()}
    assert "Traceback" not in told["err"]
    return Shown(code, told["out"], told["err"])


def _all_of(
    sources: dict[int, str], child: subprocess.Popen[bytes], interrupt: bytes
) -> dict[str, bytes]:
    shown = dict.fromkeys(sources.values(), b"")
    left = set(sources)
    while left:
        ready, _, _ = select.select(left, [], [], SECONDS)
        assert ready, "it says nothing more and does not end"
        for one in ready:
            try:
                more = os.read(one, 65536)
            except OSError:  # how Linux tells that the other side was closed
                more = b""
            shown[sources[one]] += more
            if interrupt and interrupt in shown["err"]:
                child.send_signal(signal.SIGINT)
                interrupt = b""
            if not more:
                left.discard(one)
    return shown


def screen(text: str) -> list[str]:
    """What stands on the terminal in the end: lines, as they were last rewritten."""
    lines = []
    for line in without_colours(text).split("\n"):
        there = ""
        for part in line.split("\r"):
            there = part + there[len(part) :]
        lines.append(there.rstrip())
    return lines
