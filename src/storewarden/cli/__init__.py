# SPDX-License-Identifier: MIT
"""The command line: a row for each command, and errors shown once, with an exit code."""

import atexit
import gc
import os
import sys
from collections.abc import Collection, Sequence
from importlib import import_module

from storewarden import __version__
from storewarden.cli.usage import (
    Exit,
    Help,
    Parser,
    add_command,
    end_once_interrupted,
    exit_codes,
)
from storewarden.errors import StorewardenError, UnavailableError

COMMANDS = {
    "scan": ("scan", "find debris, and remove it on request"),
    "check": ("check", "does anything need attention: one line, and an exit code"),
    "run": ("run", "run a build, and once more if debris was in its way"),
    "explain": ("explain", "why a path is as it is, or why a build failed; what to do"),
    "locks": ("locks", "who holds which of Nix's locks, and who waits"),
    "doctor": ("doctor", "which settings here cause or hide debris"),
    "audit": ("audit", "what was removed, by whom, on what proof"),
    "watch": ("service", "the service: remove debris as it is stranded"),
    "status": ("status", "does the service run, what did it do, does it need anybody"),
    "check-config": ("service", "is the configuration right; shows all of it"),
    "setup": ("service", "set the service up on this machine, or take it back"),
    "demo": ("demo", "show all of it on a throwaway store; needs no Nix"),
    "completion": ("front", "what a shell completes, to be read by it"),
    "help": ("front", "this, or the help of a command"),
}
"""In the order of the help: each with its module here, and its line there.

The module has a `define_scan` for `scan`, which gets the empty parser.
"""
_DESCRIPTION = """\
Finds what interrupted builds stranded in a Nix store, proves it dead with Nix's
own locks, and removes it.
"""
_EXAMPLES = """\
examples:
  storewarden scan --dry-run                look; changes nothing
  storewarden scan                          look, then offer to remove it
  nix build 2>&1 | storewarden explain -    why did it fail?

storewarden help COMMAND tells more of each; so does: man storewarden
"""


def parser(loaded: Collection[str] = COMMANDS) -> Parser:
    """The tree of all commands; what is parsed has `run`: what the command does.

    Of those that are not `loaded` it has the name and the line of help only.
    """
    tree = Parser(
        prog="storewarden",
        description=_DESCRIPTION,
        epilog=f"{_EXAMPLES}\n{exit_codes()}",
        formatter_class=Help,
        allow_abbrev=False,
    )
    version = f"storewarden {__version__}"
    tree.add_argument("-V", "--version", action="version", version=version, help="show it and exit")
    tree.shows_help()
    commands = tree.add_subparsers(title="commands", metavar="COMMAND")
    for name, (module, line) in COMMANDS.items():
        command = add_command(commands, name, line)
        if name in loaded:
            there = import_module(f"storewarden.cli.{module}")
            getattr(there, f"define_{name.replace('-', '_')}")(command)
    return tree


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    _leave_no_caches()
    end_once_interrupted()
    atexit.register(gc.freeze)  # Python would look through all of it once more, only to end
    words = sys.argv[1:] if argv is None else argv
    # No option before a command takes a value, so the first that can be the command is it.
    asked = [word for word in words if word in COMMANDS][:1]
    try:
        arguments = parser(asked).parse_args(words)
        return arguments.run(arguments) or _shown()
    except StorewardenError as cause:
        return _failed(str(cause), _code_of(cause))
    except KeyboardInterrupt as cause:
        return _failed(str(cause) or "interrupted; nothing was removed", Exit.INTERRUPTED)
    except Exception:  # noqa: BLE001 - the one place where a bug becomes an exit code
        import traceback

        traceback.print_exc()
        return _failed(
            "this is a bug in storewarden; nothing more was done; please report it", Exit.BUG
        )


def _leave_no_caches() -> None:
    """As root in a program of somebody else's, keep Python's caches out of it.

    What root wrote there its user could neither upgrade nor remove: `uv tool install`, and a
    checkout, come without caches.
    """
    if os.geteuid() != 0 or os.stat(__file__).st_uid == 0:
        return
    sys.dont_write_bytecode = True
    specs = [getattr(module, "__spec__", None) for module in sys.modules.values()]
    for spec in specs:
        if spec is None or not spec.cached or not spec.name.startswith("storewarden"):
            continue
        try:
            if os.stat(spec.cached).st_uid == 0:
                os.unlink(spec.cached)
                os.rmdir(os.path.dirname(spec.cached))
        except OSError:  # no such cache, or others beside it
            continue


def _shown() -> int:
    from storewarden.cli.console import unshown

    return Exit.NOT_ALL if unshown else Exit.OK


def _failed(text: str, code: int) -> int:
    from storewarden.cli.console import error

    error(text)
    return code


def _code_of(cause: StorewardenError) -> int:
    from storewarden.config import ConfigError

    match cause:
        case ConfigError():
            return Exit.WRONG_USE
        case UnavailableError():
            return Exit.UNAVAILABLE
        case _:
            return Exit.UNREADABLE
