# SPDX-License-Identifier: MIT
"""Options that several commands take, and the configuration that they and the file add up to."""

import argparse
import os
import shlex
from collections.abc import Callable, Mapping

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
ASK = "STOREWARDEN_ASK"
"""The variable of the environment that says `no` where nobody wants to be asked."""


def _directory(text: str) -> str:
    if not text.startswith("/"):
        raise ConfigError(f"{text!r} is not an absolute path")
    return text.rstrip("/")


_AGE = "since its last change: 0, 30s, 5m, 2h, 1d (0; 2s where no lock is known)"
_OPTIONS: Mapping[str, tuple[str, Callable[[str], object], str]] = {
    "config": ("FILE", str, f"the settings ({DEFAULT_CONFIG}, if there is one)"),
    "min-age": ("AGE", seconds, _AGE),
    "store-dir": ("DIR", StoreDir, f"Nix's store directory ({DEFAULT.store_dir.path})"),
    "state-dir": ("DIR", _directory, f"Nix's state directory ({DEFAULT.state_dir})"),
    "nix": ("FILE", str, "the nix program to ask (that of this system)"),
    "build-group": ("GROUP", str, f"Nix's build-users-group ({DEFAULT.build_group})"),
    "socket": ("FILE", str, f"where the helper listens ({DEFAULT.socket})"),
    "audit-log": ("FILE", str, f"where removals are recorded ({DEFAULT.audit_log})"),
}
"""Each with what its value is, what reads that, and its line of help."""
STORE = ("config", "min-age", "store-dir", "state-dir", "nix", "build-group")
"""Which store is meant, and how it is judged."""
REMOVAL = (*STORE, "socket", "audit-log")
"""The same, who is asked to remove, and where that is recorded."""


def add_options(command: Parser, *names: str) -> None:
    """Have a command take those options."""
    for name in names:
        metavar, read, text = _OPTIONS[name]
        command.add_argument(f"--{name}", type=_typed(read), metavar=metavar, help=text)


def may_ask(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a person at a terminal may be asked; `ConfigError` where that is neither yes nor no.

    Nothing in the environment removes anything: who is not asked, and has not said --yes, looks on.
    """
    match environment.get(ASK, "").lower():
        case "" | "yes" | "1":
            return True
        case "no" | "0":
            return False
    raise ConfigError(f"{ASK} is {environment[ASK]!r}, and means yes or no")


def typed_options(arguments: argparse.Namespace) -> list[str]:
    """What was typed of what decides which entries are meant, as it is typed again for root.

    The store's own directories are left out: `ThisStore.command` has them.
    """
    words = [f"--kind {kind}" for kind in getattr(arguments, "kind", None) or ()]
    for name in ("config", "min-age", "nix", "build-group", "audit-log"):
        value = getattr(arguments, name.replace("-", "_"), None)
        if value is not None:
            text = f"{value:.0f}s" if isinstance(value, float) else str(value)
            words.append(f"--{name} {shlex.quote(text)}")
    return words


def _typed(read: Callable[[str], object]) -> Callable[[str], object]:
    def typed(text: str) -> object:
        try:
            return read(text)
        except StorewardenError as cause:
            raise argparse.ArgumentTypeError(str(cause)) from None

    return typed


def config_of(arguments: argparse.Namespace, *, whatever_is_wrong: bool = False) -> Config:
    """What the command line says of the store, and for the rest what the configuration says.

    Where this user may not read the latter, and has not named it, the defaults hold, with a note;
    or else, if that is asked for, whatever is wrong with it.
    """
    try:
        return overridden(_settings(arguments.config), vars(arguments))
    except ConfigError as cause:
        forgiven = whatever_is_wrong or isinstance(cause, ConfigClosedError)
        if arguments.config is not None or not forgiven:
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
