# SPDX-License-Identifier: MIT
"""The command line: its subcommands, and errors told once, with an exit code."""

import sys
import traceback
from collections.abc import Sequence

from storewarden import __version__
from storewarden.cli.console import error, unshown
from storewarden.cli.options import (
    BUG,
    EXIT_CODES,
    INTERRUPTED,
    NOT_ALL,
    OK,
    UNAVAILABLE,
    UNREADABLE,
    WRONG_USE,
    Commands,
    Help,
    Parser,
)
from storewarden.config import ConfigError
from storewarden.errors import StorewardenError, UnavailableError
from storewarden.interrupts import end_once_interrupted

COMMANDS = (
    "scan",
    "run",
    "explain",
    "locks",
    "doctor",
    "audit",
    "watch",
    "status",
    "check-config",
    "setup",
    "demo",
)
"""In the order of the help."""
_DESCRIPTION = """\
Finds what interrupted builds stranded in a Nix store, proves it dead with Nix's
own locks, and removes it.
"""
_EXAMPLES = """\
examples:
  storewarden scan --dry-run                look; changes nothing
  sudo storewarden scan --yes               remove what is proved dead
  nix build 2>&1 | storewarden explain -    why did it fail?

storewarden COMMAND --help tells more of each; so does: man storewarden
"""


def parser(names: Sequence[str] = COMMANDS) -> Parser:
    """The tree of those commands; what is parsed has `run`: what the subcommand does."""
    tree = Parser(
        prog="storewarden",
        description=_DESCRIPTION,
        epilog=f"{_EXAMPLES}\n{EXIT_CODES}",
        formatter_class=Help,
        allow_abbrev=False,
    )
    version = f"storewarden {__version__}"
    tree.add_argument("--version", action="version", version=version, help="show it and exit")
    tree.ask("do what? say a command, such as: storewarden scan --dry-run")
    commands = tree.add_subparsers(title="commands", metavar="COMMAND")
    for name in names:
        _add(name, commands)
    return tree


def _add(name: str, commands: Commands) -> None:  # noqa: C901 - a table of imports
    """Add that command, and load what it needs: a third of the time of a short one is imports."""
    match name:
        case "scan":
            from storewarden.cli.scan import add_scan as add
        case "run":
            from storewarden.cli.run import add_run as add
        case "explain":
            from storewarden.cli.explain import add_explain as add
        case "locks":
            from storewarden.cli.explain import add_locks as add
        case "doctor":
            from storewarden.cli.doctor import add_doctor as add
        case "audit":
            from storewarden.cli.audit import add_audit as add
        case "watch":
            from storewarden.cli.watch import add_watch as add
        case "status":
            from storewarden.cli.status import add_status as add
        case "check-config":
            from storewarden.cli.check_config import add_check_config as add
        case "setup":
            from storewarden.cli.setup import add_setup as add
        case _:
            from storewarden.cli.demo import add_demo as add
    add(commands)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    end_once_interrupted()
    words = sys.argv[1:] if argv is None else argv
    asked = [name for name in COMMANDS if words and words[0] == name]
    arguments = parser(asked or COMMANDS).parse_args(words)
    try:
        return arguments.run(arguments) or (NOT_ALL if unshown else OK)
    except ConfigError as cause:
        error(str(cause))
        return WRONG_USE
    except StorewardenError as cause:
        error(str(cause))
        return UNAVAILABLE if isinstance(cause, UnavailableError) else UNREADABLE
    except KeyboardInterrupt as cause:
        error(str(cause) or "interrupted; nothing was removed")
        return INTERRUPTED
    except Exception:  # noqa: BLE001 - the one place where a bug becomes an exit code
        traceback.print_exc()
        error("this is a bug in storewarden; nothing more was done; please report it")
        return BUG
