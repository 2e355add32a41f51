# SPDX-License-Identifier: MIT
"""`storewarden audit show` and `audit verify`."""

import argparse
from dataclasses import asdict

from storewarden import auditlog
from storewarden.cli.console import error, progress, show, style
from storewarden.cli.options import add_audit_log, add_config, config_of
from storewarden.cli.usage import FOUND, JSON, OK, Parser, add_command
from storewarden.readable import count_text, json_text
from storewarden.report.audit import record_line, verification_lines

_AUDIT = """\
The audit log has an intent before each removal and its result after it, in a
chain of hashes. Where root removes, root alone can read it.
"""
_EXAMPLES = """\
examples:
  sudo storewarden audit show
  sudo storewarden audit verify
"""
_SHOW = """\
Prints every whole record of the audit log, oldest first, a line each; with
--json all that stands in them.
examples:
  sudo storewarden audit show
  sudo storewarden audit show --json | jq '.records[] | .name'
"""
_VERIFY = """\
Checks that no record was changed, removed or torn. Keep the head that it shows
elsewhere: a later log that is whole still has it.
examples:
  sudo storewarden audit verify
  sudo storewarden audit verify --json | jq -r .head
"""


def define_audit(command: Parser) -> None:
    """Its two actions, and what they take and do."""
    command.description, command.epilog = _AUDIT, _EXAMPLES
    command.ask("audit what? say show, or verify")
    actions = command.add_subparsers(title="actions", metavar="ACTION")
    for name, line, run, description in (
        ("show", "print the audit log", _show, _SHOW),
        ("verify", "is the record whole", _verify, _VERIFY),
    ):
        action = add_command(actions, name, line)
        action.does(run, description)
        action.add_argument("--json", action="store_true", help=JSON)
        add_config(action)
        add_audit_log(action)


def _show(arguments: argparse.Namespace) -> int:
    log = config_of(arguments).audit_log
    with progress("reading the audit log"):
        records = list(auditlog.read_records(log))
    if arguments.json:
        show(json_text({"records": records}))
    else:
        look = style()
        for record in records:
            show(record_line(record, look))
    odd = [record for record in records if auditlog.flaw(record)]
    if odd:
        of_all = f"{len(odd)} of {count_text(len(records), 'record')}"
        error(f"not as storewarden writes them: {of_all}; see: storewarden audit verify")
    return FOUND if odd else OK


def _verify(arguments: argparse.Namespace) -> int:
    log = config_of(arguments).audit_log
    with progress("reading the audit log"):
        found = auditlog.verify(log)
    if arguments.json:
        show(json_text({"sound": not found.problem, **asdict(found)}))
    else:
        for line in verification_lines(found, style()):
            show(line)
    return FOUND if found.problem else OK
