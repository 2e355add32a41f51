# SPDX-License-Identifier: MIT
"""Options that several commands take, and the configuration that they and the file add up to."""

import argparse
import os

from storewarden.cli.console import note
from storewarden.cli.usage import Parser
from storewarden.config import (
    DEFAULT_CONFIG,
    Config,
    ConfigClosedError,
    ConfigError,
    configured,
    overridden,
    seconds,
)
from storewarden.errors import StorewardenError
from storewarden.store.paths import StoreDir

DEFAULT = Config()


def add_config(command: Parser) -> None:
    """Where the settings are that no other option gives."""
    command.add_argument(
        "--config", metavar="FILE", help=f"the settings ({DEFAULT_CONFIG}, if there is one)"
    )


def add_store(command: Parser) -> None:
    """Which store is meant, and how it is judged."""
    add_config(command)
    add = command.add_argument
    add(
        "--min-age",
        type=_seconds,
        metavar="AGE",
        help="since its last change: 0, 30s, 5m, 2h, 1d (0; 2s where no lock is known)",
    )
    add(
        "--store-dir",
        type=_store_dir,
        metavar="DIR",
        help=f"Nix's store directory ({DEFAULT.store_dir.path})",
    )
    add(
        "--state-dir",
        type=_directory,
        metavar="DIR",
        help=f"Nix's state directory ({DEFAULT.state_dir})",
    )
    add("--nix", metavar="FILE", help="the nix program to ask (that of this system)")
    add(
        "--build-group",
        metavar="GROUP",
        help=f"Nix's build-users-group ({DEFAULT.build_group})",
    )


def add_socket(command: Parser) -> None:
    """Where to find who may remove."""
    command.add_argument(
        "--socket",
        metavar="FILE",
        help=f"where the helper listens ({DEFAULT.socket})",
    )


def add_audit_log(command: Parser) -> None:
    """Where removals are recorded."""
    command.add_argument(
        "--audit-log",
        metavar="FILE",
        help=f"where removals are recorded ({DEFAULT.audit_log})",
    )


def config_of(arguments: argparse.Namespace) -> Config:
    """What the command line says of the store, and for the rest what the configuration says.

    Where this user may not read the latter, and has not named it, the defaults hold, with a note.
    """
    try:
        return overridden(_settings(arguments.config), vars(arguments))
    except ConfigClosedError as cause:
        if arguments.config is not None:
            raise
        note(f"{cause}; so the defaults hold here, but for what options say")
        return without_file(arguments)


def without_file(arguments: argparse.Namespace) -> Config:
    """What the command line says of the store, and for the rest the defaults."""
    return overridden(DEFAULT, vars(arguments))


def _settings(path: str | None) -> Config:
    """As `configured`; but root does not take from the usual place what others can have written.

    It names a program that root runs, and a file that root writes to.
    """
    if path is None and os.geteuid() == 0 and os.path.lexists(DEFAULT_CONFIG):
        from storewarden.setup.files import changeable  # noqa: PLC0415 - for root alone

        if loose := changeable([DEFAULT_CONFIG]):
            raise ConfigError(
                f"root does not read {DEFAULT_CONFIG}: others than root can change {loose}; mend"
                f" that, or name it: --config {DEFAULT_CONFIG}"
            )
    return configured(path)


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
