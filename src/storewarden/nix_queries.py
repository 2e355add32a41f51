# SPDX-License-Identifier: MIT
"""What Nix is asked besides validity, by anybody: registrations, roots, logs, settings, versions.

None of it decides whether anything may go, so root's half does without. Each question is a process
of its own with an end (store/nix.py), and raises `SilentError` where Nix gives no answer that is
understood.
"""

import base64
import os
import re
import select
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from storewarden import host
from storewarden.errors import BadMessageError
from storewarden.store.floating import nix32
from storewarden.store.nix import NEW_COMMANDS, Nix, PathInfo, SilentError, path_info, run, started
from storewarden.store.paths import StoreDir, StorePath
from storewarden.strict_json import load

T = TypeVar("T")
_QUERY_SECONDS = 30.0
"""To find the roots Nix looks into every process."""
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Registration:
    """A row of ValidPaths, as far as it is known."""

    time: int | None
    """Unix time."""
    deriver: str | None
    """Full path."""
    nar_size: int | None
    content_address: str | None


def registration(nix: Nix, path: StorePath) -> Registration | None:
    """How that path is registered; None if it is not valid."""
    infos: dict[StorePath, PathInfo | None] = {}
    with suppress(BadMessageError):
        infos = path_info(nix, [nix.store_dir.join(path.base_name)])
    if path not in infos:
        raise SilentError(f"what nix path-info says of {path.base_name} is not understood")
    info = infos[path]
    return None if info is None else registration_in(info, nix.store_dir)


def registration_in(info: PathInfo, store_dir: StoreDir) -> Registration:
    """What `nix path-info` says of a valid path; what is not as Nix writes it is not known."""
    return Registration(
        _of(int, info.get("registrationTime")),
        _full_path(info.get("deriver"), store_dir),
        _of(int, info.get("narSize")),
        _content_address(info.get("ca")),
    )


def _full_path(value: object, store_dir: StoreDir) -> str | None:
    """A path as the database has it: `--json-format` 2 and 3 give the base name alone."""
    path = StorePath.maybe(str(value).removeprefix(f"{store_dir.path}/"))
    return None if path is None else store_dir.join(path.base_name)


_METHODS = {"text": "text:", "flat": "fixed:", "nar": "fixed:r:", "git": "fixed:git:"}
"""Of content addresses (content-address.cc, 2.34.6)."""


def _content_address(value: object) -> str | None:
    """One as the database has it: `--json-format` 2 and 3 give an object, with the hash as SRI."""
    match value:
        case str():
            return value
        case {"method": str(method), "hash": str(hash_)} if method in _METHODS:
            algorithm, _, digest = hash_.partition("-")
            with suppress(ValueError):
                return f"{_METHODS[method]}{algorithm}:{nix32(base64.b64decode(digest))}"
    return None


def query(nix: Nix, question: str, path: str) -> tuple[str, ...]:
    """The lines that `nix-store --query` answers of that full path, sorted, each once."""
    patient = replace(nix, timeout=_QUERY_SECONDS)
    answer = run(patient, [nix.nix_store, "--query", question, path])
    return tuple(sorted(set(answer.decode("utf-8", "backslashreplace").splitlines())))


def feed_log(nix: Nix, derivation: str, seconds: float, feed: Callable[[bytes], None]) -> None:
    """Feed the log that Nix keeps of that derivation's last build; it may have none.

    What Nix has unpacked of it within that time counts. No cache is asked for one.
    """
    command = [nix.nix_store, "--option", "substitute", "false", "--read-log", derivation]
    until = time.monotonic() + seconds
    with suppress(SilentError), started(nix, command, subprocess.DEVNULL) as process:
        assert process.stdout  # noqa: S101 - it was asked for
        log = process.stdout.fileno()
        while select.select([log], [], [], max(0.0, until - time.monotonic()))[0]:
            if not (piece := os.read(log, _PIECE)):
                return
            feed(piece)


class Flavour(StrEnum):
    """Whose Nix it is."""

    NIX = "Nix"
    LIX = "Lix"
    DETERMINATE = "Determinate Nix"


@dataclass(frozen=True, slots=True)
class NixVersion:
    """A version; of Determinate Nix that of the Nix which it is made from."""

    flavour: Flavour
    number: tuple[int, int, int]
    text: str
    """As people call it: `2.34.6`, `3.20.0 (Nix 2.34.6)`."""
    early: bool = False
    """Made before the release of that number (`2.35.0pre20260801_88b09c6`)."""

    @property
    def name(self) -> str:
        """Whose and which: `Determinate Nix 3.20.0 (Nix 2.34.6)`."""
        return f"{self.flavour} {self.text}"


_PRINTED = re.compile(
    r"nix(?:-[a-z]{1,20})? \(([^()\n]{1,80})\) ([0-9]{1,6})\.([0-9]{1,6})(?:\.([0-9]{1,6}))?(\S*)",
    re.ASCII,
)
_FIRST_LIX = (2, 90, 0)
"""Lix counts from there on; Nix is at 2.35."""


def parse_version(printed: str) -> NixVersion | None:
    """What the first line of `nix --version` says; None if that is not understood.

    `nix (Nix) 2.8.0`, `nix (Lix, like Nix) 2.95.0`, `nix (Determinate Nix 3.20.0) 2.34.6`.
    """
    match = _PRINTED.fullmatch(printed.partition("\n")[0].strip())
    if match is None:
        return None
    whose, rest = match[1], match[5]
    number = (int(match[2]), int(match[3]), int(match[4] or 0))
    text = ".".join(part for part in match.group(2, 3, 4) if part is not None) + rest
    early = rest.startswith("pre")
    if whose.startswith("Determinate Nix"):
        own = whose.removeprefix("Determinate Nix").strip()
        return NixVersion(Flavour.DETERMINATE, number, f"{own} (Nix {text})".strip(), early)
    if whose.startswith("Lix"):
        return NixVersion(Flavour.LIX, number, text, early)
    return NixVersion(Flavour.NIX, number, text, early) if whose == "Nix" else None


def version_of(nix: Nix) -> NixVersion:
    """The version of the program."""
    text = run(nix, [nix.program, "--version"]).decode("utf-8", "replace")
    version = parse_version(text)
    if version is None:
        raise SilentError(f"it calls itself {text.strip()[:80]!r}")
    return version


def runs_without_configuration(nix: Nix) -> bool:
    """Whether Nix gives its version once it reads no nix.conf: tried, not taken from its words."""
    nothing = [f"{name}=/dev/null" for name in ("NIX_CONF_DIR", "NIX_USER_CONF_FILES")]
    with suppress(SilentError):
        text = run(nix, ["/usr/bin/env", *nothing, nix.program, "--version"])
        return parse_version(text.decode("utf-8", "replace")) is not None
    return False


def version_of_daemon(nix: Nix) -> NixVersion:
    """As it tells its clients. They have printed it since 2.4, and as JSON since about 2.15."""
    for words in (("store", "info"), ("store", "ping")):
        with suppress(SilentError):
            answer = run(nix, [nix.program, *NEW_COMMANDS, *words, "--json"])
            return parse_daemon_version(answer)
    raise SilentError("this Nix does not tell which version its daemon has")


def parse_daemon_version(printed: bytes) -> NixVersion:
    """The version in what `nix store info --json` says."""
    version = parse_version(f"nix (Nix) {_members(printed).get('version')}")
    if version is None:
        raise SilentError("it does not say which version its daemon has")
    if version.number >= _FIRST_LIX:
        return replace(version, flavour=Flavour.LIX)
    return version


@dataclass(frozen=True, slots=True)
class Settings:
    """Nix's settings, as `nix show-config` tells them; None for what it does not tell."""

    sandbox: str | None = None
    """`true`, `false` or `relaxed`."""
    sandbox_fallback: bool | None = None
    """Whether it builds without a sandbox where none can be made (2.4 to 2.35: by default)."""
    features: frozenset[str] | None = None
    """Experimental features that are on."""
    build_group: str | None = None
    """`build-users-group`; empty where builds run as whoever runs Nix."""
    allocates: bool | None = None
    """`auto-allocate-uids`; None also before 2.12, which does not have it."""
    first_allocated: int | None = None
    """`start-id`."""
    allocated: int | None = None
    """`id-count`."""
    hook: str | None = None
    """`pre-build-hook`; empty for none."""

    @property
    def uids(self) -> range:
        """Those that Nix allocates to builds, where it does; its defaults where not told."""
        first = host.FIRST_ALLOCATED if self.first_allocated is None else self.first_allocated
        count = host.ALLOCATED if self.allocated is None else self.allocated
        return range(first, first + count)


def settings_of(nix: Nix) -> Settings:
    """Those of nix.conf as the program reads it, with nothing of the caller's.

    nix-daemon has read the same file, when it started.
    """
    try:
        return _settings(nix, "config", "show")  # from 2.20 on
    except SilentError as silent:
        with suppress(SilentError):
            return _settings(nix, "show-config")  # gone after 2.19, but for an alias that warns
        raise silent from None


def _settings(nix: Nix, *words: str) -> Settings:
    asked = [nix.program, *NEW_COMMANDS, *words]
    answer = run(nix, [*asked, "--json"])
    try:
        settings = parse_settings(answer)
    except SilentError as cause:
        raise SilentError(f"what nix {' '.join(words)} says is not understood") from cause
    if settings.features is None:  # 2.8 gives numbers
        with suppress(SilentError):
            return replace(settings, features=parse_features(run(nix, asked)))
    return settings


def parse_settings(printed: bytes) -> Settings:
    """What `nix show-config --json` says."""
    values = {
        name: one["value"]
        for name, one in _members(printed).items()
        if isinstance(one, dict) and "value" in one
    }
    if not values:
        raise SilentError("there are no settings in it")
    return Settings(
        sandbox=_sandbox(values.get("sandbox")),
        sandbox_fallback=_of(bool, values.get("sandbox-fallback")),
        features=_names(values.get("experimental-features")),
        build_group=_of(str, values.get("build-users-group")),
        allocates=_of(bool, values.get("auto-allocate-uids")),
        first_allocated=_of(int, values.get("start-id")),
        allocated=_of(int, values.get("id-count")),
        hook=_of(str, values.get("pre-build-hook")),
    )


def parse_features(printed: bytes) -> frozenset[str] | None:
    """The experimental features in what `nix show-config` prints without `--json`."""
    for line in printed.decode("utf-8", "replace").splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() == "experimental-features":
            return frozenset(value.split())
    return None


def _members(printed: bytes) -> Mapping[str, object]:
    """Those of the JSON object that Nix has printed."""
    try:
        document = load(printed)
    except BadMessageError as cause:
        raise SilentError(str(cause)) from cause
    if not isinstance(document, dict):
        raise SilentError("it is no JSON object")
    return document


def _sandbox(value: object) -> str | None:
    match value:
        case bool():
            return str(value).lower()
        case "true" | "false" | "relaxed":
            return str(value)
        case _:
            return None


def _of(kind: type[T], value: object) -> T | None:
    """That value, if it is of that type, and not merely of one below it: True is no number."""
    return value if type(value) is kind else None


def _names(value: object) -> frozenset[str] | None:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return frozenset(value)
    return None
