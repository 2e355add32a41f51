# SPDX-License-Identifier: MIT
"""`storewarden status`: does the service run, what did it do, what does it need."""

import argparse
import time

from storewarden import host
from storewarden.cli.console import show, style
from storewarden.cli.options import add_config, config_of
from storewarden.cli.usage import JSON, NOT_ALL, OK, UNAVAILABLE, Parser
from storewarden.copyable import DECLARE, SET_UP
from storewarden.daemon.status import is_held, read_status
from storewarden.report.status import noticed, status_json, status_lines

_DESCRIPTION = """\
Reads what the service last said. It needs no privilege.
examples:
  storewarden status
  storewarden status --json | jq .status.stuck
"""


def define_status(command: Parser) -> None:
    """What it takes and does."""
    command.does(_status, _DESCRIPTION)
    command.add_argument("--json", action="store_true", help=JSON)
    add_config(command)


def _status(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    running = is_held(config.runtime_dir)
    said, now = read_status(config.runtime_dir), time.time()
    if said and running:
        said = noticed(said, now)
    if arguments.json:
        show(status_json(said, running=running))
    else:
        set_up = DECLARE if host.declared_by() else SET_UP
        for line in status_lines(said, now, style(), running=running, set_up=set_up):
            show(line)
    if not running:
        return UNAVAILABLE
    return NOT_ALL if said and (said.stuck_count or said.problems) else OK
