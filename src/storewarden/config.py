# SPDX-License-Identifier: MIT
"""The configuration: TOML in, a frozen `Config` out. Nothing unknown, nothing of a wrong type.

What is not said has a default that removes debris and nothing else. The helper reads none of it.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from storewarden.claims import PROOF, REMOVED_BY_DEFAULT
from storewarden.errors import StorewardenError
from storewarden.store.entries import EntryKind
from storewarden.store.paths import StoreDir

DEFAULT_CONFIG = "/etc/storewarden/config.toml"
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LARGEST = 1024 * 1024
"""Bytes of a configuration file; a longer one is not one."""


class ConfigError(StorewardenError):
    """The configuration is wrong; the text says where, and what is wanted there."""


class ConfigClosedError(ConfigError):
    """This user may not read the configuration; others may."""


class Mode(StrEnum):
    """What is done about debris."""

    REPORT = "report"
    REPAIR = "repair"


@dataclass(frozen=True, slots=True)
class Config:
    """What may be said in the file; `_` in a name is `-` there. Lengths of time in seconds."""

    mode: Mode = Mode.REPAIR
    kinds: frozenset[EntryKind] = REMOVED_BY_DEFAULT
    """What is removed; everything is reported."""
    min_age: float | None = None
    """Since its last change (ctime). None is 2 s, and no time for what known locks cover."""
    sweep_interval: float = 900.0
    """Between two looks at the whole store, whatever has been noticed."""
    poll_interval: float = 2.0
    """Between two looks at whether the store has changed, where that is not told by itself."""
    max_removals: int = 1000
    """A sweep that would remove more only reports: so much debris is something else."""
    store_dir: StoreDir = field(default_factory=lambda: StoreDir("/nix/store"))
    state_dir: str = "/nix/var/nix"
    build_group: str = "nixbld"
    nix: str | None = None
    """The program to ask; None is the first of Nix's usual places."""
    socket: str = "/run/storewarden/helper.sock"
    audit_log: str = "/var/log/storewarden/audit.jsonl"
    runtime_dir: str = "/run/storewarden/watch"
    """Where the service keeps its lock and its status."""
    metrics_textfile: str | None = None
    """A file for node_exporter's textfile collector, such as .../storewarden.prom."""
    metrics_listen: str | None = None
    """Where Prometheus may ask for the same, such as 127.0.0.1:9913."""


def load_config(path: str) -> Config:
    """The configuration in that file; `ConfigError` if it is not there or says anything wrong."""
    try:
        with open(path, "rb") as file:
            text = file.read(_LARGEST + 1)
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        wrong = ConfigClosedError if isinstance(cause, PermissionError) else ConfigError
        raise wrong(f"cannot read the configuration {path}: {reason}") from cause
    if len(text) > _LARGEST:
        raise ConfigError(f"{path}: longer than a configuration can be ({_LARGEST} bytes)")
    try:
        document = tomllib.loads(text.decode("utf-8"))
        return parse_config(document)
    except (ConfigError, ValueError, RecursionError) as cause:
        raise ConfigError(f"{path}: {cause}") from cause


def configured(path: str | None) -> Config:
    """The configuration in that file; None is the default place, where there need not be one."""
    return Config() if path is None and not _is_there() else load_config(path or DEFAULT_CONFIG)


def _is_there() -> bool:
    """Whether there is one in the default place; also where that cannot be told."""
    try:
        os.lstat(DEFAULT_CONFIG)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # reading it says why
    return True


def parse_config(document: Mapping[str, object]) -> Config:
    """The configuration that a TOML document says; `ConfigError` names the first wrong key."""
    known = {one.name.replace("_", "-"): one.name for one in fields(Config)}
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key not in known:
            raise ConfigError(_unknown(key, known))
        try:
            values[known[key]] = _READERS[known[key]](value)
        except ConfigError as cause:
            raise ConfigError(f"{key}: {cause}") from cause
    return Config(**values)


def said(config: Config) -> dict[str, object]:
    """The document that says exactly this configuration; what is None is left out."""
    document: dict[str, object] = {}
    for one in fields(Config):
        match getattr(config, one.name):
            case None:
                continue
            case float(length):
                value: object = f"{length:.0f}s"
            case frozenset(kinds):
                value = sorted(map(str, kinds))
            case StoreDir(path):
                value = path
            case other:
                value = other
        document[one.name.replace("_", "-")] = value
    return document


def seconds(untrusted: object) -> float:
    """A length of time such as 30s, 5m, 2h or 1d in seconds; `ConfigError` for anything else."""
    text = untrusted if isinstance(untrusted, str) else ""
    match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if match is None:
        raise ConfigError(f"{untrusted!r} is not a length of time such as 0, 30s or 2h")
    return float(match[1]) * _UNITS[match[2]]


def _interval(untrusted: object) -> float:
    length = seconds(untrusted)
    if length < 1:
        raise ConfigError(f"{untrusted!r} is too short; at least 1s")
    return length


def _mode(untrusted: object) -> Mode:
    try:
        return Mode(_text(untrusted))
    except ValueError:
        raise ConfigError(
            f"{untrusted!r} is neither {' nor '.join(map(repr, map(str, Mode)))}"
        ) from None


def _kinds(untrusted: object) -> frozenset[EntryKind]:
    removable = ", ".join(PROOF)
    if not isinstance(untrusted, list) or not all(isinstance(one, str) for one in untrusted):
        raise ConfigError(f"a list of kinds is wanted, of {removable}")
    wrong = [one for one in untrusted if one not in set(PROOF)]
    if wrong:
        raise ConfigError(f"{wrong[0]!r} is never removed; what can be is {removable}")
    return frozenset(map(EntryKind, untrusted))


def _count(untrusted: object) -> int:
    # type() and not isinstance(): in Python True is an int.
    if type(untrusted) is not int or untrusted < 0:
        raise ConfigError(f"{untrusted!r} is not a number of entries")
    return untrusted


def _text(untrusted: object) -> str:
    if not isinstance(untrusted, str) or not untrusted:
        raise ConfigError(f"{untrusted!r} is not a text")
    return untrusted


def _path(untrusted: object) -> str:
    path = _text(untrusted)
    if not path.startswith("/") or "\0" in path:
        raise ConfigError(f"{path!r} is not an absolute path")
    return path.rstrip("/") or "/"


def _address(untrusted: object) -> str:
    text = _text(untrusted)
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:  # noqa: PLR2004 - TCP's
        raise ConfigError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:9913")
    return text


def _store_dir(untrusted: object) -> StoreDir:
    try:
        return StoreDir(_text(untrusted))
    except ConfigError:
        raise
    except StorewardenError as cause:
        raise ConfigError(str(cause)) from None


def _unknown(key: str, known: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
    return f"unknown key {key!r}; {hint}"


_READERS: Mapping[str, Callable[[object], object]] = {
    "mode": _mode,
    "kinds": _kinds,
    "min_age": seconds,
    "sweep_interval": _interval,
    "poll_interval": _interval,
    "max_removals": _count,
    "store_dir": _store_dir,
    "state_dir": _path,
    "build_group": _text,
    "nix": _path,
    "socket": _path,
    "audit_log": _path,
    "runtime_dir": _path,
    "metrics_textfile": _path,
    "metrics_listen": _address,
}
