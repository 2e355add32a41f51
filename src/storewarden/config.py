# SPDX-License-Identifier: MIT
"""The configuration: TOML in, a frozen `Config` out. Nothing unknown, nothing of a wrong type.

Commands, service and helper read it alike. A key is one row of `Config`; tests name whatever else
must tell of it. What is left out has a default that removes debris and nothing else.
"""

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, TypeVar

from storewarden.claims import PROOF, REMOVED_BY_DEFAULT
from storewarden.errors import StorewardenError, reason_of
from storewarden.host import RUNTIME_DIR, SOCKET
from storewarden.store.entries import EntryKind
from storewarden.store.paths import StoreDir

DEFAULT_CONFIG = "/etc/storewarden/config.toml"
MANIFEST = "/etc/storewarden/manifest.json"
"""Where `storewarden setup` records what it has written on this machine."""
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_ENDLESS = 10**9
"""Entries, and seconds: 31 years; no system call waits for some hundred."""
_LARGEST = 64 * 1024
"""Bytes of a configuration file; a longer one is not one."""
_LONGEST_LINE = 4096
"""Bytes; of a longer key with dots in it the TOML reader makes minutes and gigabytes."""
T = TypeVar("T")


class ConfigError(StorewardenError):
    """The configuration is wrong; the text says where, and what is wanted there."""


class ConfigClosedError(ConfigError):
    """This user may not read the configuration; others may."""


class Mode(StrEnum):
    """What is done about debris."""

    REPORT = "report"
    REPAIR = "repair"


def seconds(untrusted: object) -> float:
    """A length of time such as 30s, 5m, 2h or 1d in seconds; `ConfigError` for anything else."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", untrusted if isinstance(untrusted, str) else "")
    if match is None or (length := float(match[1]) * _UNITS[match[2]]) >= _ENDLESS:
        raise ConfigError(f"{untrusted!r} is not a length of time such as 0, 30s or 2h")
    return length


def _interval(untrusted: object) -> float:
    length = seconds(untrusted)
    if length < 1:
        raise ConfigError(f"{untrusted!r} is too short; at least 1s")
    return length


def _mode(untrusted: object) -> Mode:
    text = _text(untrusted)
    if text not in set(Mode):
        raise ConfigError(f"{text!r} is neither {' nor '.join(map(repr, map(str, Mode)))}")
    return Mode(text)


def _kinds(untrusted: object) -> frozenset[EntryKind]:
    removable = ", ".join(PROOF)
    if not isinstance(untrusted, list) or not all(isinstance(one, str) for one in untrusted):
        raise ConfigError(f"a list of kinds is wanted, of {removable}")
    if wrong := [one for one in untrusted if one not in set(PROOF)]:
        raise ConfigError(f"{wrong[0]!r} is never removed; what can be is {removable}")
    return frozenset(map(EntryKind, untrusted))


def _count(untrusted: object) -> int:
    # type() and not isinstance(): in Python True is an int.
    if type(untrusted) is not int or not 0 <= untrusted < _ENDLESS:
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


def _store_dir(untrusted: object) -> StoreDir:
    return StoreDir(_text(untrusted))


def _address(untrusted: object) -> str:
    text = _text(untrusted)
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:  # noqa: PLR2004 - TCP's
        raise ConfigError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:9913")
    return text


def _key(read: Callable[[object], T], default: object, sentence: str) -> T:
    """A key: what reads its value strictly, its default as it would be written, and what it is."""
    metadata = {"read": read, "shown": default, "sentence": sentence}
    return field(default=read(default), metadata=metadata)


def _optional_key(read: Callable[[object], T], example: object, sentence: str) -> T | None:
    """A key that may be left out, which the sentence speaks of; `example` shows a value."""
    return field(default=None, metadata={"read": read, "shown": example, "sentence": sentence})


@dataclass(frozen=True, slots=True)
class Config:
    """What may stand in the file; `_` in a name is `-` there. Lengths of time in seconds."""

    # fmt: off
    mode: Mode = _key(_mode, "repair", '"repair" removes what is proved dead, "report" says so.')
    kinds: frozenset[EntryKind] = _key(
        _kinds, sorted(REMOVED_BY_DEFAULT), "What is removed; everything is reported.")
    min_age: float | None = _optional_key(seconds, "30s",
        "How long an entry must have been left alone. If not set: 2s, or 0 where locks are known.")
    sweep_interval: float = _key(_interval, "15m", "How often to look at the whole store at least.")
    poll_interval: float = _key(_interval, "2s",
        "How often to look for changes where the system does not tell of them.")
    max_removals: int = _key(_count, 1000,
        "A sweep that would remove more removes nothing: that is something else.")
    store_dir: StoreDir = _key(_store_dir, "/nix/store", "Nix's store directory.")
    state_dir: str = _key(_path, "/nix/var/nix", "Nix's state directory.")
    build_group: str = _key(_text, "nixbld", "Nix's build-users-group.")
    nix: str | None = _optional_key(_path, "/nix/var/nix/profiles/default/bin/nix",
        "The program that is asked what is valid. If not set: the first of Nix's usual places.")
    socket: str = _key(_path, SOCKET,
        "Where the helper is asked (and, without systemd, listens).")
    audit_log: str = _key(_path, "/var/log/storewarden/audit.jsonl", "Where removals are recorded.")
    runtime_dir: str = _key(_path, RUNTIME_DIR,
        "Where the service keeps its lock and its status.")
    metrics_textfile: str | None = _optional_key(
        _path, "/var/lib/prometheus/node-exporter/storewarden.prom",
        "For Prometheus: a file for node_exporter's textfile collector.")
    metrics_listen: str | None = _optional_key(_address, "127.0.0.1:9913",
        "For Prometheus: an address to be asked at.")
    # fmt: on


KEYS: Mapping[str, Field[Any]] = {one.name.replace("_", "-"): one for one in fields(Config)}
"""The rows, by how they are called in the file."""


def load_config(path: str) -> Config:
    """The configuration in that file; `ConfigError` if it is not there or says anything wrong."""
    import tomllib  # noqa: PLC0415 - most machines have no such file

    try:
        with open(path, "rb") as file:
            text = file.read(_LARGEST + 1)
    except OSError as cause:
        wrong = ConfigClosedError if isinstance(cause, PermissionError) else ConfigError
        raise wrong(f"cannot read the configuration {path}: {reason_of(cause)}") from cause
    if len(text) > _LARGEST:
        raise ConfigError(f"{path}: longer than a configuration can be ({_LARGEST} bytes)")
    if any(len(line) > _LONGEST_LINE for line in text.split(b"\n")):
        raise ConfigError(f"{path}: a line is longer than any can be ({_LONGEST_LINE} bytes)")
    try:
        return parse_config(tomllib.loads(text.decode("utf-8")))
    except (ConfigError, ValueError, RecursionError) as cause:
        raise ConfigError(f"{path}: {cause}") from cause


def configured(path: str | None) -> Config:
    """The configuration in that file; None is the default place, where there need not be one."""
    return load_config_if_there(DEFAULT_CONFIG) if path is None else load_config(path)


def load_config_if_there(path: str) -> Config:
    """The configuration in that file; the defaults if there is no such file."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Config()
    except OSError:
        pass  # reading it says why
    return load_config(path)


def parse_config(document: Mapping[str, object]) -> Config:
    """The configuration that a TOML document says; `ConfigError` names the first wrong key."""
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key not in KEYS:
            raise ConfigError(f"unknown key {key[:60]!r}; {meant(key[:60], KEYS)}")
        try:
            values[KEYS[key].name] = KEYS[key].metadata["read"](value)
        except (StorewardenError, ValueError) as cause:  # the latter of a number without end
            raise ConfigError(f"{key}: {cause}") from cause
    return Config(**values)


def overridden(config: Config, options: Mapping[str, object]) -> Config:
    """That configuration, but for what options of a key's name say that are not None."""
    given = {one.name: options.get(one.name) for one in KEYS.values()}
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(config, **values)


def meant(word: str, words: Collection[str]) -> str:
    """What somebody may have meant who wrote that in place of one of these."""
    import difflib  # noqa: PLC0415 - for who has mistyped something

    bare = {one.lstrip("-"): one for one in words}  # the dashes of all options make none alike
    close = difflib.get_close_matches(word.lstrip("-"), bare, n=1, cutoff=0.5)
    return f"did you mean {bare[close[0]]!r}?" if close else f"known are {', '.join(words)}"
