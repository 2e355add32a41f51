# SPDX-License-Identifier: MIT
"""`storewarden explain`: of a path (explain_paths.py) or of a log (explain_log.py)."""

import argparse

from storewarden.cli import console
from storewarden.cli.options import add_store, config_of, without_file
from storewarden.cli.usage import FOUND, JSON, NOT_ALL, OK, UNREADABLE, WRONG_USE, Parser
from storewarden.config import ConfigError

_WHAT = "explain what? say PATH..., or - alone for a log on stdin, or --log FILE"
_EXPLAIN = """\
Of each path: is it valid, whose is it, who holds and uses it, what would
storewarden do, what can you do. Of a build's log, on stdin (-) or in a file:
the known failures in it, cause and cure. What comes on stdin is passed through
to stdout as it is; its explanation follows on stderr. It needs no privilege,
takes no lock, and changes nothing (docs/explain.md).
examples:
  storewarden explain ./result
  storewarden explain /nix/store/...-hello.drv
  nix build 2>&1 | storewarden explain -
  storewarden explain --log build.log --json
"""


def define_explain(command: Parser) -> None:
    """What it takes and does."""
    command.does(_explain, _EXPLAIN)
    command.add_argument(
        "paths", nargs="*", metavar="PATH", help="a store path, base name, lock file, or link; or -"
    )
    command.add_argument("--log", metavar="FILE", help="explain the log in this file")
    command.add_argument("--json", action="store_true", help=JSON)
    add_store(command)


def _explain(arguments: argparse.Namespace) -> int:
    if arguments.log is not None or arguments.paths == ["-"]:
        return _explain_log(arguments)
    from storewarden.cli.explain_paths import explain  # noqa: PLC0415 - not for a log
    from storewarden.explain.entry import NotInStoreError  # noqa: PLC0415 - likewise

    if not arguments.paths or "-" in arguments.paths:
        raise ConfigError(_WHAT)
    config = config_of(arguments)
    try:
        silent = explain(config, arguments.paths, as_json=arguments.json)
    except NotInStoreError as cause:
        console.error(str(cause))
        return WRONG_USE
    if silent:
        console.error(f"Nix could not be asked: {silent}")
    return UNREADABLE if silent else OK


def _explain_log(arguments: argparse.Namespace) -> int:
    from storewarden.cli.explain_log import explain_log  # noqa: PLC0415 - seldom wanted

    if arguments.log is not None and arguments.paths:
        raise ConfigError(_WHAT)
    try:
        config = config_of(arguments)
    except ConfigError as cause:
        if arguments.log is not None or arguments.config is not None:
            raise
        # Who writes the log must not be ended by a file that they know nothing of.
        console.note(f"{cause}; so the defaults hold here, but for what options say")
        config = without_file(arguments)
    known = explain_log(config, arguments.log, as_json=arguments.json)
    if console.unshown:
        return NOT_ALL
    return OK if known else FOUND
