# SPDX-License-Identifier: MIT
"""What people read, and copy: safe words, colours by meaning, widths; commands for a shell.

Each stream is asked for itself what it can show. A command is for the store that is meant, and is
typed as whoever reads it must type it: in the source it stands as `sudo storewarden scan --yes`.
"""

import json
import os
import re
import shlex
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from enum import Enum, StrEnum
from functools import cache
from typing import Any, TextIO

JSON_VERSION = 1
"""Of the JSON object of every command."""
WIDTH = 80
"""Columns, where there is no terminal."""
_NARROW = 40
"""Columns: on a narrower terminal lines are as for this one, and the terminal breaks them."""
_PROSE = 110
"""Columns beside the indent: what is read word by word is not made wider than this."""
_WHOLE = re.compile(
    r"(?:sudo )?(?:env (?:NIX_\w+=\S+ )+)?"
    r"(?:(?:/\S+/)?(?:storewarden|systemctl|nix-store|nix)|/\S+ -m storewarden) [\w-]+"
    r"(?: (?:log|show|verify)\b| experimental-features ''"
    r"| --(?:kind|config|min-age|nix|build-group|audit-log) (?:'[^']*'|\S+)| [-/']\S+)*"
    r"|process \d+|uid \d+|\d[\d.]* (?:B|KiB|MiB|GiB|files?|(?:s|min|h|days)(?: ago)?)\b"
)
"""What stays on one line, so that it can be copied or read at a glance: commands, numbers."""
_JOINED = "\0"
_SGR = re.compile(r"\x1b\[[\d;]*m")
_AS_ASCII = {
    ord(one): ascii_form
    for ascii_form, same in {
        "|": "│┃║╎╏┆┇┊┋",
        "-": "─━═╌╍┄┅┈┉\u2010\u2011\u2012\u2013\u2014\u2212",
        "+": "┌┏╭╔┐┓╮╗└┗╰╚┘┛╯╝├┣╠┤┫╣┬┳╦┴┻╩┼╋╬┝┠╞",
        "'": "\u2018\u2019\u201a\u201b",
        '"': "\u201c\u201d\u201e\u201f",
        "...": "…",
        "*": "•●·",
        ">": "▶\u276f\u203a",
        "->": "→",
        "x": "\u00d7✖❌✗✘",
        "!": "⚠",
        "": "\ufe0f",  # says how the one before it is to look
    }.items()
    for one in same
}
_KIB = 1024
_AGES = ((86400 * 2, 86400, "days"), (7200, 3600, "h"), (120, 60, "min"), (0, 1, "s"))
_KINDS = {
    "lock": "lock file",
    "output-of-root": "output of root",
    "temporary": "temporary entry",
    "check": "check result",
    "old": "old copy",
    "foreign": "foreign entry",
    "missing": "missing path",
}
"""What people call an entry of a kind, where they do not call it by the kind's name."""
_STORE_DIR, _STATE_DIR = "/nix/store", "/nix/var/nix"
REMOVE = "sudo storewarden scan --yes"
SET_UP = "sudo storewarden setup"
TAKE_BACK = f"{SET_UP} --uninstall"
WATCH = "storewarden watch"
DECLARE = "services.storewarden.enable = true;"
"""What sets the service up where a system of modules owns the machine (`host.declared_by`)."""
REPAIRING = "--option experimental-features ''"
"""What Nix must be told to repair anything.

Where ca-derivations is enabled Nix 2.8 says that a path is corrupted or missing, does nothing and
ends with 0: the realisation tells it that the output is valid (derivation-goal.cc
`checkPathValidity`). Without it floating content-addressed outputs are refused, and not repaired
either (tests/real/test_explain.py).
"""
SUDO_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin"
"""Where every sudo finds a program, whatever the caller's PATH is.

Its `secure_path`, which only root can read, has /usr/local/bin too on Debian 12 and 13, and not on
forky nor on Red Hat's systems. NixOS and macOS set none and keep the caller's PATH; what those have
for all is the last of these.
"""
_NIX_BIN = "/nix/var/nix/profiles/default/bin"
_LONGEST_FIRST_LINE = 4096
_BEGINS = r"(?:(?<!.)|(?<=[:;] )|(?<=&& )|(?<=\| )|(?<=xargs ))"
_NEEDLESS_SUDO = re.compile(
    rf"{_BEGINS}sudo (?:-[Hi] )?(?!-)"
    r"|\bsudo (?:-[Hi] )?(?=(?:env|nix[\w-]*|storewarden|systemctl|launchctl) )"
)
"""Where a command begins with sudo, and not where a sentence speaks of it."""
_TYPED = re.compile(
    r"(?<![\w/.-])(?<!-m )(?P<sudo>sudo (?:-[Hi] )?)?(?P<words>(?:env )?(?:NIX_\w+=\S+ )*)"
    r"(?:(?P<ours>storewarden)(?= (?:--help|scan|run|explain|locks|doctor|audit|watch|status"
    r"|check-config|check|completion|help|setup|demo)\b)"
    r"|(?P<nix>nix-(?:store|collect-garbage|build|env)|nix)(?= [a-z-]))"
)
_PROGRAM = re.compile(r"(^|&& |\| xargs )((?:sudo )?)(storewarden|nix(?:-[a-z]+)?)(?= )")
_PLACE = re.compile(rf"(?<=\s)({_STORE_DIR}|{_STATE_DIR})(?!\w)")


def shown(text: str) -> str:
    """Text that a builder may have chosen, safe for a terminal: only printable ASCII is left."""
    return "".join(c if c.isprintable() and c.isascii() else ascii(c)[1:-1] for c in text)


def quoted(text: str) -> str:
    """A line of a log, as `shown`, but that what is drawn there or set well is as ASCII has it.

    Not for names: two could look the same.
    """
    return shown(text.translate(_AS_ASCII))


def json_text(document: Mapping[str, object]) -> str:
    """The JSON object that a command's `--json` shows (docs/json.md): its version, and that.

    A dataclass in it becomes an object of its `members`, an enumeration's member its value.
    """
    return json.dumps({"version": JSON_VERSION, **document}, indent=2, default=_plain)


def _plain(thing: Any) -> object:  # noqa: ANN401 - as json gives it
    return thing.value if isinstance(thing, Enum) else members(thing)


def members(thing: Any) -> dict[str, object]:  # noqa: ANN401 - a dataclass of any type
    """The fields of a dataclass, called as in JSON: `clientCommand`."""
    return {_camel(one.name): getattr(thing, one.name) for one in fields(thing)}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def size_text(count: int) -> str:
    """Bytes as people read them."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < _KIB:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _KIB
    return f"{value:.1f} GiB"


def count_text(count: int, noun: str) -> str:
    """`1 file`, `2 processes`, `3 entries`: how many there are of what is called so."""
    first, of, rest = noun.partition(" of ")
    plural = f"{first[:-1]}ies" if first.endswith("y") else f"{first}es"
    plural = plural if first.endswith(("s", "y")) else f"{first}s"
    return f"{count} {noun if count == 1 else f'{plural}{of}{rest}'}"


def kinds_text(counts: Mapping[str, int]) -> str:
    """`1 output, 2 lock files`: how many entries there are of each kind, by the kind's name."""
    some = [count_text(count, _KINDS.get(kind, kind)) for kind, count in counts.items() if count]
    return ", ".join(some) or "nothing"


def age_text(seconds: float) -> str:
    """A length of time as people read it."""
    for least, unit, name in _AGES:
        if seconds >= least:
            return f"{seconds / unit:.0f} {name}"
    return "less than 0 s"


def since(seconds: float, now: float) -> str:
    """How long ago that Unix time is."""
    return age_text(max(0.0, now - seconds))


def local_time(seconds: float) -> str:
    """A Unix time as the clock on the wall has it; JSON has it in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds))


def moment(seconds: float, now: float) -> str:
    """The same, and how long ago that is."""
    return f"{local_time(seconds)} ({since(seconds, now)} ago)"


def without_colours(text: str) -> str:
    """The same without what `Style.mark` adds."""
    return _SGR.sub("", text)


class Mark(StrEnum):
    """What a colour means, as SGR parameters (ECMA-48). It is never all that says so.

    Of the 16 basic colours these read on the light and the dark backgrounds of usual palettes.
    Yellow does not on white, nor blue on black, and bright black is Solarized's background; so
    what is secondary has no colour at all, and stands back behind what is bold.
    """

    NAME = "1"
    """What a block is about, and what is to be copied: a path, a command."""
    WELL = "32"
    """What was removed, may go, or is well."""
    KEPT = "95"
    """What is kept, held or at work; magenta, as Nix's warnings are."""
    WRONG = "1;91"
    """What is wrong; red, as Nix's errors are."""


@dataclass(frozen=True, slots=True)
class Style:
    """How lines look on one stream."""

    width: int = WIDTH
    """Columns that a line may have; a path or a command that is longer stays whole."""
    colours: bool = False
    terminal: bool = False
    """Whether somebody looks at it. Elsewhere what programs may read by line stays one line."""

    def mark(self, mark: Mark | None, text: str) -> str:
        """That text in the colour of its meaning. It must be safe for a terminal already."""
        return f"\x1b[{mark}m{text}\x1b[0m" if mark and text and self.colours else text

    def wrapped(
        self, first: str, text: str, then: str, lead: str = "", mark: Mark | None = None
    ) -> list[str]:
        """`lead`, as `mark`, and `text` behind it, on as many lines as it takes.

        The first line begins with `first`, the others with `then`; `lead` is not broken.
        """
        begin = f"{first}{lead}"
        lines = textwrap.wrap(
            _whole(lead) + _WHOLE.sub(lambda found: _whole(found[0]), text),
            max(_NARROW, min(self.width, len(then) + _PROSE)),
            initial_indent=first,
            subsequent_indent=then,
            break_long_words=False,
            break_on_hyphens=False,
        )
        plain = [line.replace(_JOINED, " ") for line in lines] or [first]
        return [f"{first}{self.mark(mark, lead)}{plain[0].removeprefix(begin)}", *plain[1:]]

    def row(self, label: str, text: str, lead: str = "", mark: Mark | None = None) -> list[str]:
        """`label` and beside it `lead`, as `mark`, and `text`, on as many lines as it takes."""
        first = f"    {label:<12}"
        return self.wrapped(first, shown(text), " " * len(first), shown(lead), mark)

    def folded(
        self, first: str, text: str, then: str, lead: str = "", mark: Mark | None = None
    ) -> str:
        """One line; only where somebody looks at it and it is too long, as many as it takes."""
        if self.terminal and len(f"{first}{lead}{text}") > self.width:
            return "\n".join(self.wrapped(first, text, then, lead, mark))
        return f"{first}{self.mark(mark, lead)}{text}"


PLAIN = Style()
"""For a file or a pipe."""


def style_of(stream: TextIO | None, environment: Mapping[str, str] = os.environ) -> Style:
    """How lines look on that stream; None is one that was closed."""
    terminal = stream is not None and stream.isatty()
    return Style(
        width=_columns(stream if terminal else None, environment),
        colours=has_colours(terminal=terminal, environment=environment),
        terminal=terminal,
    )


def has_colours(*, terminal: bool, environment: Mapping[str, str]) -> bool:
    """Whether colours are wanted: no-color.org, then bixense.com/clicolors, then TERM."""
    if environment.get("NO_COLOR"):
        return False
    if environment.get("CLICOLOR_FORCE", "0") not in {"", "0"}:
        return True
    return terminal and not is_dumb(environment)


def is_dumb(environment: Mapping[str, str]) -> bool:
    """Whether the terminal understands no sequences, as far as it is told."""
    return environment.get("TERM", "") in {"", "dumb"}


def _columns(terminal: TextIO | None, environment: Mapping[str, str]) -> int:
    """As `shutil.get_terminal_size`, which however looks at stdout alone."""
    with suppress(ValueError):
        if (columns := int(environment.get("COLUMNS", ""))) > 0:
            return columns
    if terminal is not None:
        with suppress(OSError):
            return os.get_terminal_size(terminal.fileno()).columns or WIDTH
    return WIDTH


def _whole(text: str) -> str:
    return text.replace(" ", _JOINED)


@dataclass(frozen=True, slots=True)
class ThisStore:
    """The store that commands are about; those for the usual one are written without options."""

    store_dir: str = _STORE_DIR
    state_dir: str = _STATE_DIR

    def command(self, text: str) -> str:
        """A command for the usual store turned into the same for this one, as it is typed."""
        if self == USUAL:
            return typed(text)
        store, state = shlex.quote(self.store_dir), shlex.quote(self.state_dir)
        environment = f"env NIX_STORE_DIR={store} NIX_STATE_DIR={state}"
        turned = _PROGRAM.sub(
            lambda m: m[0] if m[3] == "storewarden" else f"{m[1]}{m[2]}{environment} {m[3]}", text
        )
        ours = text.removeprefix("sudo ").startswith("storewarden ")
        return typed(turned) + (f" --store-dir {store} --state-dir {state}" if ours else "")

    def template(self, text: str) -> str:
        """The same of one in which only Nix's usual directories stand, and no path yet."""
        places = {_STORE_DIR: self.store_dir, _STATE_DIR: self.state_dir}
        return self.command(_PLACE.sub(lambda found: shlex.quote(places[found[0]]), text))


USUAL = ThisStore()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who reads a command, and what must be typed there for it to run."""

    python: str = ""
    """The interpreter that this very program runs in; empty where it is not known."""
    program: str = ""
    """Where its command is; empty where it has none."""
    module: str = ""
    """What starts it where it has none."""
    root: bool = False
    path: str = ""
    """Where the caller's shell looks for programs."""
    sudo_path: str = SUDO_PATH

    def typed(self, text: str) -> str:
        """The same with each command as it must be typed; done twice it is done once."""
        if not self.python:
            return text
        return _TYPED.sub(self._command, _NEEDLESS_SUDO.sub("", text) if self.root else text)

    def _command(self, found: re.Match[str]) -> str:
        sudo, words = found["sudo"] or "", found["words"]
        path = self.sudo_path if sudo else self.path
        program = self._ours(path) if found["ours"] else self._nix(found["nix"], path)
        return f"{sudo}{words}{program}"

    def _ours(self, path: str) -> str:
        if self.is_at(first_at("storewarden", path)):
            return "storewarden"
        return shlex.quote(self.program) if self.program else self.module

    def _nix(self, name: str, path: str) -> str:
        found = first_at(name, path)
        return name if found else first_at(name, f"{self.path}:{_NIX_BIN}") or name

    def is_at(self, place: str) -> bool:
        """Whether what lies there is this program: its command, or one that its `python` runs."""
        if self.program and os.path.realpath(place) == os.path.realpath(self.program):
            return True
        try:
            with open(place, "rb") as file:
                first = file.readline(_LONGEST_FIRST_LINE)
        except OSError:
            return False
        return first.startswith(b"#!") and first[2:].split()[:1] == [os.fsencode(self.python)]


def first_at(name: str, path: str) -> str:
    """The first program of that name where `path` says to look; empty if there is none."""
    places = (f"{directory}/{name}" for directory in path.split(":") if directory)
    return next((one for one in places if os.path.isfile(one) and os.access(one, os.X_OK)), "")


def caller_of(argv: Sequence[str], python: str, environment: Mapping[str, str]) -> Caller:
    """Of a process that was started so; of one that runs another program than ours, nobody."""
    place, program = argv[0] if argv else "", ""
    if os.path.basename(place) == "storewarden":
        program = os.path.abspath(place)
    elif not place.endswith("/storewarden/__main__.py"):
        return Caller()
    elif os.access(f"{os.path.dirname(python)}/storewarden", os.X_OK):
        program = f"{os.path.dirname(python)}/storewarden"
    found_by = environment.get("PYTHONPATH", "")  # sudo would not pass it on
    before = f"env PYTHONPATH={shlex.quote(found_by)} " if found_by else ""
    module = f"{before}{shlex.quote(python)} -m storewarden"
    if not can_be_copied(program + module) or set(program + module) & {'"', "\\"}:
        return Caller()  # commands stand in JSON, too
    path = environment.get("PATH", os.defpath)
    return Caller(python, program, module, os.geteuid() == 0, path)


@cache
def this_caller() -> Caller:
    """Of this process."""
    return caller_of(sys.argv, sys.executable, os.environ)


def typed(text: str) -> str:
    """Our own sentence or command, in which each command is as this process's caller types it."""
    return this_caller().typed(text)


def can_be_copied(command: str) -> bool:
    """Whether it reaches a terminal as it is: what is shown escaped would mean something else."""
    return shown(command) == command


def check_again(derivation: str) -> str:
    """The command that builds all outputs of that `.drv` once more, beside what is there.

    Whatever comes of it is not kept. The same from Nix 2.3 on; `nix build --rebuild` is spelled
    differently before and after 2.13.
    """
    return f"nix-store --realise --check {shlex.quote(derivation)}"


def make_anew(path: str, derivation: str) -> str:
    """The command that deletes a path that nothing needs, and builds that `.drv` again."""
    return (
        f"nix-store --delete {shlex.quote(path)} && nix-store --realise {shlex.quote(derivation)}"
    )


def repair_path(path: str) -> str:
    """The command that fetches or builds a damaged or missing path again."""
    return f"sudo nix-store --repair-path {shlex.quote(path)} {REPAIRING}"
