# SPDX-License-Identifier: MIT
"""The argparse tree: what may be said on the command line, typed where it is parsed."""

import argparse
from typing import NoReturn

from storewarden import __version__
from storewarden.config import DEFAULT_CONFIG, Config, ConfigError, seconds
from storewarden.store.entries import EntryKind
from storewarden.store.errors import StorewardenError
from storewarden.store.paths import StoreDir

_DEFAULT = Config()
_EXIT_CODES = """\
exit codes:
  0    all is well (also when something alive was kept)
  1    --exit-code and something was found; or the audit log is damaged
  2    wrong use
  3    the store, its database, Nix, or the service's status cannot be read or asked; nothing
       was removed
  4    the helper or the audit log is not available, or another service runs; nothing
       (more) was removed; or (status) no service runs
  5    something could not be proved dead, removed, or shown; or (status) something is stuck,
       or the service has a problem
  70   a bug in storewarden
  130  interrupted
"""


class _Parser(argparse.ArgumentParser):
    """One that tells an error in one line, and where to read on."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"storewarden: error: {message} (see: {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The whole tree; what is parsed has `command`: the words of the subcommand."""
    tree = _Parser(
        prog="storewarden",
        description="Finds what interrupted builds stranded in a Nix store, proves it dead with"
        " Nix's own locks, and removes it.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    tree.add_argument("--version", action="version", version=f"storewarden {__version__}")
    commands = tree.add_subparsers(required=True, metavar="COMMAND")
    _add_scan(commands)
    _add_explain(commands)
    _add_locks(commands)
    _add_audit(commands)
    service = commands.add_parser(
        "watch",
        help="the service: watch the store and remove debris as it is stranded",
        description="Runs until SIGTERM or Ctrl-C. SIGHUP reads the configuration again, SIGUSR1"
        " sweeps the whole store now. Started by systemd or launchd after: sudo storewarden setup;"
        " in a container without either it runs as root, in this one process.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    service.add_argument("--config", metavar="FILE", help=f"another than {DEFAULT_CONFIG}")
    service.set_defaults(command="watch")
    check = commands.add_parser(
        "check-config", help="check a configuration file, and show all of it", allow_abbrev=False
    )
    check.add_argument("config", nargs="?", default=DEFAULT_CONFIG, metavar="FILE")
    check.add_argument("--json", action="store_true")
    check.set_defaults(command="check-config")
    _add_setup(commands)
    _add_status(commands)
    demo = commands.add_parser(
        "demo", help="show all of it on a throwaway store; needs no Nix", allow_abbrev=False
    )
    demo.set_defaults(command="demo")
    return tree


def _add_scan(commands: "argparse._SubParsersAction[_Parser]") -> None:
    scan = commands.add_parser(
        "scan",
        help="find debris, and remove it on request",
        description="One sweep over the store. Shows what it finds; on a terminal it then offers"
        " to remove what nothing claims. It needs no privilege to look.",
        epilog="examples:\n  storewarden scan --dry-run\n  sudo storewarden scan --yes\n"
        "  storewarden scan --json | jq '.findings[].path'\n\n" + _EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = scan.add_argument
    add("-n", "--dry-run", action="store_true", help="only show; wins over --yes")
    add("-y", "--yes", action="store_true", help="remove without asking")
    add("--json", action="store_true", help="one JSON object on stdout (docs/json.md)")
    add(
        "--kind",
        action="append",
        metavar="K",
        choices=[kind.value for kind in EntryKind],
        help=f"only this kind, may be repeated: {', '.join(EntryKind)}",
    )
    add("--exit-code", action="store_true", help="exit with 1 if anything is found")
    _add_store(scan)
    add("--socket", default=_DEFAULT.socket, metavar="PATH", help="where the helper listens")
    add("--audit-log", default=_DEFAULT.audit_log, metavar="PATH")
    scan.set_defaults(command="scan")


def _add_store(command: _Parser) -> None:
    """Which store is meant, and how it is judged."""
    add = command.add_argument
    add(
        "--min-age",
        type=_seconds,
        default=_DEFAULT.min_age,
        metavar="D",
        help="0, 30s, 5m, 2h, 1d (2s)",
    )
    add("--store-dir", type=_store_dir, default=_DEFAULT.store_dir, metavar="D")
    add("--state-dir", type=_directory, default=_DEFAULT.state_dir, metavar="D")
    add("--nix", metavar="PATH", help="the nix program to ask")
    add(
        "--build-group",
        default=_DEFAULT.build_group,
        metavar="G",
        help="Nix's build-users-group (nixbld)",
    )


def _add_explain(commands: "argparse._SubParsersAction[_Parser]") -> None:
    explain = commands.add_parser(
        "explain",
        help="all that can be learned of a path, and what to do about it",
        description="Says of each path whether it is valid, whose it is, who holds and uses it,"
        " what storewarden would do, and what you can do. It needs no privilege, takes no lock,"
        " and changes nothing (docs/explain.md).",
        epilog="examples:\n  storewarden explain ./result\n"
        "  storewarden explain /nix/store/...-hello.drv\n\n" + _EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    explain.add_argument(
        "path", nargs="+", metavar="PATH", help="a store path, base name, lock file, or link"
    )
    explain.add_argument("--json", action="store_true", help="one JSON object (docs/json.md)")
    _add_store(explain)
    explain.set_defaults(command="explain")


def _add_locks(commands: "argparse._SubParsersAction[_Parser]") -> None:
    locks = commands.add_parser(
        "locks",
        help="who holds which of Nix's locks, and who waits",
        description="Lists lock files, held ones first. It takes no lock and needs no privilege;"
        " who waits for one only root can see.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    locks.add_argument("--all", action="store_true", help="also those that always lie there, free")
    locks.add_argument("--json", action="store_true", help="one JSON object (docs/json.md)")
    _add_store(locks)
    locks.set_defaults(command="locks")


def _add_status(commands: "argparse._SubParsersAction[_Parser]") -> None:
    status = commands.add_parser(
        "status",
        help="does the service run, what did it do, does it need anybody",
        description="Reads what the service last said. It needs no privilege.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    status.add_argument("--json", action="store_true", help="one JSON object (docs/json.md)")
    status.add_argument(
        "--config", metavar="FILE", help=f"the service's ({DEFAULT_CONFIG}, if there is one)"
    )
    status.set_defaults(command="status")


def _add_audit(commands: "argparse._SubParsersAction[_Parser]") -> None:
    audit = commands.add_parser("audit", help="what was removed, by whom, why", allow_abbrev=False)
    actions = audit.add_subparsers(required=True, metavar="ACTION")
    for name, text in (
        ("show", "print the audit log"),
        ("verify", "check that no record was changed, removed or torn"),
    ):
        action = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        action.add_argument("--json", action="store_true")
        action.add_argument("--audit-log", default=_DEFAULT.audit_log, metavar="PATH")
        action.set_defaults(command=f"audit {name}")


def _add_setup(commands: "argparse._SubParsersAction[_Parser]") -> None:
    setup = commands.add_parser(
        "setup",
        help="set the service up on this machine, or take it back",
        description="Writes what systemd or launchd needs, shows each step, and changes nothing"
        " where everything is as it should be (docs/service.md).",
        allow_abbrev=False,
    )
    add = setup.add_argument
    add("-n", "--dry-run", action="store_true", help="only show what would be done")
    add("--uninstall", action="store_true", help="take away what setup wrote; not the audit log")
    add("--root", default="", metavar="DIR", help="write below DIR and run nothing, for packages")
    add("--json", action="store_true", help="show the steps as one JSON object")
    setup.set_defaults(command="setup")


def _seconds(text: str) -> float:
    try:
        return seconds(text)
    except ConfigError as cause:
        raise argparse.ArgumentTypeError(str(cause)) from None


def _store_dir(text: str) -> StoreDir:
    try:
        return StoreDir(text)
    except StorewardenError as cause:
        raise argparse.ArgumentTypeError(str(cause)) from None


def _directory(text: str) -> str:
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not an absolute path")
    return text.rstrip("/")
