# SPDX-License-Identifier: MIT
"""Nix's pre-build-hook as storewarden sets it: its file, the setting, and who else has one.

Nix ends a build whose hook fails, prints, or is not there (`getPathsInSandbox`, 2.8 to 2.36). So
the setting stands in a file beside the hook, which nix.conf includes only if it is there.
"""

import os
import shlex
from collections.abc import Iterator
from contextlib import suppress

HOOK = "/etc/storewarden/pre-build-hook"
INCLUDED = "/etc/storewarden/nix.conf"
INCLUDE = f"!include {INCLUDED}"
SETTING = "pre-build-hook"
NIX_CONF, CUSTOM_CONF = "/etc/nix/nix.conf", "/etc/nix/nix.custom.conf"
_MOST_FILES = 16
_HEAD = """\
#!/bin/sh
# Nix runs this before it builds: {setting} in {included}.
# It has what an interrupted build left in the way of this one removed. It fails no build: its own
# part prints nothing, takes a second at most, and how that ends is no matter.
python={python}
code={code}
config={config}
PATH=$PATH:/usr/bin:/bin
unset blocked

if [ -x "$python" ] && [ -r "$code" ]; then
    # dash waits for ever in `wait` where SIGCHLD came in blocked, as Nix hands it on; there the
    # program's own alarm is all that ends it.
    blocked=
    [ ! -r "/proc/$$/status" ] || while read -r key value; do
        case $key$value in SigBlk:*[13579bdf]????) blocked=1 ;; esac
    done <"/proc/$$/status"
fi
if [ -n "${{blocked-}}" ]; then
    "$python" -I -S -B "$code" "$config" "$@" </dev/null >/dev/null
    status=$?
    [ "$status" -le 1 ] || echo "storewarden: what looks before a build was ended ($status)" >&2
elif [ -n "${{blocked+set}}" ]; then
    "$python" -I -S -B "$code" "$config" "$@" </dev/null >/dev/null &
    own=$!
    {{ trap 'kill "$!"; exit' TERM; sleep 1 & wait "$!" && kill -9 "$own"; }} \
        </dev/null >/dev/null 2>&1 &
    wait "$own" 2>/dev/null
    status=$?
    kill "$!" 2>/dev/null
    [ "$status" -le 1 ] || echo "storewarden: what looks before a build was ended ($status)" >&2
else
    echo "storewarden: $python or $code is gone; no matter, nothing was looked for" >&2
fi
"""
_ALONE = "exit 0\n"
_OTHER = """
# Set before storewarden was, by {place}. Without an argument doctor looks how long ours takes.
[ "$#" -gt 0 ] || exit 0
[ -x {other} ] || {{ echo "storewarden: "{other}" is gone; it is not run" >&2; exit 0; }}
exec {other} "$@"
"""


def hook_text(python: str, code: str, config: str, other: tuple[str, str] | None) -> str:
    """The hook: run by that interpreter, the package below `code`, with that configuration.

    `other` is the hook that it ends with, and where that is set.
    """
    quoted = {"python": python, "code": place_in(code), "config": config}
    words = {name: shlex.quote(word) for name, word in quoted.items()}
    text = _HEAD.format(setting=SETTING, included=INCLUDED, **words)
    if other is None:
        return text + _ALONE
    place, program = other
    return text + _OTHER.format(place=place.replace("\n", " "), other=shlex.quote(program))


def place_in(package: str) -> str:
    """Where the program is that the hook runs, in this package's directory."""
    return f"{package}/helper/before_build.py"


def chained(text: str) -> str:
    """The other hook that a hook of ours ends with; empty for none."""
    last = text.rstrip("\n").rpartition("\n")[2]
    with suppress(ValueError):
        match shlex.split(last):
            case ["exec", other, "$@"]:
                return other
    return ""


def conf_of(top: str = "") -> str:
    """The file of Nix's settings that is people's: Determinate's daemon replaces the other."""
    words = (line.split() for line in _lines(f"{top}{NIX_CONF}"))
    custom = any(
        one[:1] in (["include"], ["!include"]) and one[1:] in (["nix.custom.conf"], [CUSTOM_CONF])
        for one in words
    )
    return CUSTOM_CONF if custom else NIX_CONF


def includes_ours(top: str = "") -> bool:
    """Whether nix.conf, or what it includes, includes our setting."""
    return any(place == INCLUDED for place, _ in _settings(NIX_CONF, top, []))


def other_hook(top: str = "") -> tuple[str, str] | None:
    """Where somebody else sets a hook, and which; the last one, as Nix takes it."""
    found = None
    for place, line in _settings(NIX_CONF, top, []):
        name, equals, value = line.partition("=")
        if equals and name.strip() == SETTING and place != INCLUDED:
            found = (place, value.strip()) if value.strip() else None
    return found


def _settings(conf: str, top: str, seen: list[str]) -> Iterator[tuple[str, str]]:
    """Every line of that file and of those it includes, in their order, with its file.

    Of one without lines, or not there, an empty one. Nix reads them so (config.cc, 2.8 to 2.36).
    """
    seen.append(conf)
    yield conf, ""
    for line in _lines(f"{top}{conf}"):
        words = line.split()
        if words[:1] in (["include"], ["!include"]) and len(words) > 1:
            place = os.path.normpath(os.path.join(os.path.dirname(conf), words[1]))
            if len(seen) < _MOST_FILES:
                yield from _settings(place, top, seen)
        else:
            yield conf, line


def _lines(place: str) -> list[str]:
    try:
        with open(place, encoding="utf-8", errors="replace", newline="\n") as file:
            return [line.partition("#")[0].strip() for line in file]
    except OSError:
        return []
