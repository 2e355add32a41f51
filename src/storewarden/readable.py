# SPDX-License-Identifier: MIT
"""What people read, and copy: safe words, colours by meaning, widths; commands for a shell.

Each stream is asked for itself what it can show. A command is for the store that is meant.
"""

import json
import os
import re
import shlex
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from enum import Enum, StrEnum
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
    r"(?:sudo )?(?:env (?:NIX_\w+=\S+ )+)?(?:storewarden|systemctl|nix-store|nix) [\w-]+"
    r"(?: (?:show|verify)\b| experimental-features ''| [-/']\S+)*"
    r"|process \d+|uid \d+|\d[\d.]* (?:B|KiB|MiB|GiB|files?|(?:s|min|h|days)(?: ago)?)\b"
)
"""What stays on one line, so that it can be copied or read at a glance: commands, numbers."""
_JOINED = "\0"
_KIB = 1024
_AGES = ((86400 * 2, 86400, "days"), (7200, 3600, "h"), (120, 60, "min"), (0, 1, "s"))
_STORE_DIR, _STATE_DIR = "/nix/store", "/nix/var/nix"
REMOVE = "sudo storewarden scan --yes"
SET_UP = "sudo storewarden setup"
DECLARE = "services.storewarden.enable = true;"
"""What sets the service up where a system of modules owns the machine (`host.declared_by`)."""
REPAIRING = "--option experimental-features ''"
"""What Nix must be told to repair anything.

Where ca-derivations is enabled Nix 2.8 says that a path is corrupted or missing, does nothing and
ends with 0: the realisation tells it that the output is valid (derivation-goal.cc
`checkPathValidity`). Without it floating content-addressed outputs are refused, and not repaired
either (tests/real/test_explain.py).
"""
_PROGRAM = re.compile(r"(^|&& |\| xargs )((?:sudo )?)(storewarden|nix(?:-[a-z]+)?)(?= )")
_PLACE = re.compile(rf"(?<=\s)({_STORE_DIR}|{_STATE_DIR})(?!\w)")


def shown(text: str) -> str:
    """Text that a builder may have chosen, safe for a terminal: only printable ASCII is left."""
    return "".join(c if c.isprintable() and c.isascii() else ascii(c)[1:-1] for c in text)


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
    """`1 file`, `2 files`, `3 processes`: how many there are of what is called so."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"


def age_text(seconds: float) -> str:
    """A length of time as people read it."""
    for least, unit, name in _AGES:
        if seconds >= least:
            return f"{seconds / unit:.0f} {name}"
    return "less than 0 s"


def since(seconds: float, now: float) -> str:
    """How long ago that Unix time is."""
    return age_text(max(0.0, now - seconds))


def moment(seconds: float, now: float) -> str:
    """A Unix time, as the audit log has it, and how long ago that is."""
    from datetime import UTC, datetime  # noqa: PLC0415 - seldom needed, and slow to load

    day = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{day} ({since(seconds, now)} ago)"


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
        """A command for the usual store turned into the same for this one."""
        if self == USUAL:
            return text
        store, state = shlex.quote(self.store_dir), shlex.quote(self.state_dir)
        environment = f"env NIX_STORE_DIR={store} NIX_STATE_DIR={state}"
        turned = _PROGRAM.sub(
            lambda m: m[0] if m[3] == "storewarden" else f"{m[1]}{m[2]}{environment} {m[3]}", text
        )
        ours = text.removeprefix("sudo ").startswith("storewarden ")
        return turned + (f" --store-dir {store} --state-dir {state}" if ours else "")

    def template(self, text: str) -> str:
        """The same of one in which only Nix's usual directories stand, and no path yet."""
        places = {_STORE_DIR: self.store_dir, _STATE_DIR: self.state_dir}
        return self.command(_PLACE.sub(lambda found: shlex.quote(places[found[0]]), text))


USUAL = ThisStore()


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
