# SPDX-License-Identifier: MIT
"""`make picture`: docs/picture/scan.svg, what a terminal shows of a real wedge and its end.

Real Nix, in a rig of its own, so as root on Linux. What the program writes to a terminal is taken
as it is; only the options that point at the rig are left out of the command lines that are shown.
"""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from real import namespace as ns
from real.builds import let_finish, stranded
from real.recipes import arguments
from real.rig import Rig, missing, opened_rig, reset
from real.warden import audit_log

COLUMNS = 100
_LINES = 40
_FONT = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
_QUESTION = b"[y/N] "
_AGE = 3.0
"""Seconds; the debris is then older than storewarden's least age."""


def main(place: str) -> None:
    """Write the picture to `place`."""
    if reason := missing():
        sys.exit(f"no picture: {reason}")
    console = Console(record=True, file=io.StringIO(), width=COLUMNS, force_terminal=True)
    with opened_rig() as rig:
        reset(rig)
        for line in _told(rig):
            # A terminal breaks lines anywhere, not at spaces.
            for part in line.divide(range(COLUMNS, len(line), COLUMNS)):
                console.print(part, no_wrap=True, highlight=False)
    drawn = console.export_svg(title="storewarden", unique_id="storewarden")
    # Fonts from elsewhere are not fetched by who looks at a picture: the reader's own will do.
    drawn = "\n".join(line.rstrip() for line in _FONT.sub("", drawn).splitlines())
    with open(place, "w", encoding="utf-8") as file:
        file.write(f"{drawn}\n")


def _told(rig: Rig) -> Iterator[Text]:
    """The story: the wedge, what it is, its removal, and the build that ends well."""
    build = stranded(rig, "hello")
    let_finish(rig, build.recipe)
    again = ["nix-build", "--no-out-link", *arguments(rig, build.recipe)]
    with ns.flocked(rig.namespace, f"/nix/var/nix/userpool/{build.uid}"):
        yield _typed("nix-build hello.nix")
        yield from _shown(rig, again, user=rig.user)
    ns.run(rig.namespace, ["sleep", str(_AGE)])
    scan = [rig.python, "-m", "storewarden", "scan", "--audit-log", audit_log(rig)]
    yield from (Text(), _typed("sudo storewarden scan"))
    yield from _shown(rig, scan, user="root")
    yield from (Text(), _typed("nix-build hello.nix"))
    yield from (Text("..."), *_shown(rig, again, user=rig.user)[-1:])


def _typed(command: str) -> Text:
    return Text(f"$ {command}", style="bold")


def _shown(rig: Rig, command: Sequence[str], *, user: str) -> list[Text]:
    """The lines that a command writes to a terminal of its own, where it gets yes for an answer."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, COLUMNS, 0, 0))
    bounded = ["timeout", "60", *ns.as_user(rig.namespace, user), *command]
    process = subprocess.Popen(
        [*rig.namespace.enter, *bounded],
        env={**ns.environment(rig.namespace, user), "TERM": "xterm-256color"},
        stdin=its,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    written = b""
    for piece in _pieces(ours):
        written += piece
        if written.endswith(_QUESTION):
            os.write(ours, b"y\n")
    os.close(ours)
    process.wait()
    text = written.decode("utf-8", errors="backslashreplace").replace("\r\n", "\n")
    return [Text.from_ansi(line) for line in text.removesuffix("\n").split("\n")]


def _pieces(fd: int) -> Iterator[bytes]:
    while True:
        try:
            piece = os.read(fd, 65536)
        except OSError:
            return  # Linux: nobody has the other side open any more
        if not piece:
            return
        yield piece


if __name__ == "__main__":
    main(sys.argv[1])
