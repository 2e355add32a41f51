# SPDX-License-Identifier: MIT
"""What Nix says of itself and its settings. Each question is a process of its own, with an end.

The settings come from nix.conf as the nix program reads it, with nothing of the caller's.
nix-daemon has read the same file, when it started.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from storewarden.doctor.bounded import within
from storewarden.doctor.configuration import CONFIGURATION, hidden
from storewarden.doctor.facts import Nix, Settings, Unknown
from storewarden.doctor.versions import Flavour, NixVersion, parse_version
from storewarden.store import nix as validity
from storewarden.store.fact import Fact, Known
from storewarden.store.nix import HungError
from storewarden.store.paths import StorePath

_FEATURES = ("--extra-experimental-features", "nix-command", "--offline")
_TOLD = (("config", "show"), ("show-config",))
"""The first from 2.20 on; the second is gone after 2.19, but for an alias that warns."""
_FIRST_LIX = (2, 90, 0)
"""Lix counts from there on; Nix is at 2.35."""
_NOBODYS = StorePath("00000000000000000000000000000000-storewarden-doctor")
"""A path that no store has: what is wanted is not the answer, but that there is one."""
_CHANGING = (*CONFIGURATION, "/etc/nix/nix.custom.conf")
"""The last is where Determinate Nix has what its users set."""


def ask_nix(nix: validity.Nix, configuration: Sequence[str] = CONFIGURATION) -> Nix:
    """All that is asked of Nix, as an ordinary user may."""
    version, answers = _version(nix), _answers(nix)
    unread = within(lambda: hidden(configuration))
    heard = answers.known is Known.YES
    return Nix(
        nix.program,
        version=version,
        daemon_version=_daemon_version(nix, version) if heard else Unknown("no daemon answers"),
        settings=unread if isinstance(unread, Unknown) else _settings(nix, unread),
        answers=answers,
        changed=last_changed(),
        hidden=unread if isinstance(unread, str) else "",
        misconfigured=isinstance(version, Unknown) and _runs_unconfigured(nix),
    )


def _answers(nix: validity.Nix) -> Fact:
    """Whether the daemon answers. Without one nothing is asked: root's Nix would make a store."""
    if nix.environment().get("NIX_REMOTE") != "daemon":
        return Fact(Known.UNKNOWN, "there is no nix-daemon")
    found = validity.ask(nix, [_NOBODYS])[_NOBODYS]
    silent = found.known is Known.UNKNOWN
    return Fact(Known.NO, found.detail) if silent else Fact(Known.YES)


def last_changed(places: Sequence[str] = _CHANGING) -> float | None:
    """When Nix's configuration was last changed, as a Unix time; None if it is not to be seen."""
    times = []
    for place in places:
        with suppress(OSError):
            times.append(os.stat(place).st_ctime)
    return max(times, default=None)


def parse_settings(printed: bytes) -> Settings | None:
    """What `nix show-config --json` says; None if that is not such a document."""
    try:
        document = json.loads(printed)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    values = {
        name: one["value"]
        for name, one in document.items()
        if isinstance(one, dict) and "value" in one
    }
    if not values:
        return None
    return Settings(
        sandbox=_sandbox(values.get("sandbox")),
        sandbox_fallback=_truth(values.get("sandbox-fallback")),
        features=_names(values.get("experimental-features")),
        build_group=_text(values.get("build-users-group")),
        allocates=_truth(values.get("auto-allocate-uids")),
        first_allocated=_number(values.get("start-id")),
        allocated=_number(values.get("id-count")),
    )


def parse_features(printed: bytes) -> frozenset[str] | None:
    """The experimental features in what `nix show-config` prints without `--json`."""
    for line in printed.decode("utf-8", "replace").splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() == "experimental-features":
            return frozenset(value.split())
    return None


def _version(nix: validity.Nix) -> NixVersion | Unknown:
    said = _said(nix, "--version")
    if isinstance(said, Unknown):
        return said
    text = said.decode("utf-8", "replace")
    return parse_version(text) or Unknown(f"it calls itself {text.strip()[:80]!r}")


def _runs_unconfigured(nix: validity.Nix) -> bool:
    """Whether Nix works once it reads no configuration: told by trying, not by its words."""
    nothing = [f"{name}=/dev/null" for name in ("NIX_CONF_DIR", "NIX_USER_CONF_FILES")]
    with suppress(HungError):
        said = validity.run(nix, ["/usr/bin/env", *nothing, nix.program, "--version"])
        return (
            isinstance(said, bytes) and parse_version(said.decode("utf-8", "replace")) is not None
        )
    return False


def _daemon_version(nix: validity.Nix, version: NixVersion | Unknown) -> NixVersion | Unknown:
    """As it tells its clients. They have printed it since 2.4, and as JSON since about 2.15."""
    for words in (("store", "info"), ("store", "ping")):
        said = _said(nix, *_FEATURES, *words, "--json")
        told = parse_daemon_version(said) if isinstance(said, bytes) else None
        if told is not None:
            # It gives its number alone: of the same number, it is of the same make.
            alike = isinstance(version, NixVersion) and version.number == told.number
            return version if alike else told
    return Unknown("this Nix does not tell which version its daemon has")


def parse_daemon_version(printed: bytes) -> NixVersion | None:
    """The version in what `nix store info --json` says; None if there is none."""
    try:
        document = json.loads(printed)
    except (ValueError, RecursionError):
        return None
    told = document.get("version") if isinstance(document, dict) else None
    if not isinstance(told, str):
        return None
    version = parse_version(f"nix (Nix) {told}")
    if version is not None and version.number >= _FIRST_LIX:
        return replace(version, flavour=Flavour.LIX)
    return version


def _settings(nix: validity.Nix, unread: str) -> Settings | Unknown:
    if unread:
        return Unknown(f"this user may not read {unread}")
    why = ""
    for words in _TOLD:
        said = _said(nix, *_FEATURES, *words, "--json")
        if isinstance(said, Unknown):
            why = why or said.reason
            continue
        settings = parse_settings(said)
        if settings is None:
            return Unknown(f"what nix {' '.join(words)} says is not understood")
        if settings.features is None:  # 2.8 gives numbers
            plain = _said(nix, *_FEATURES, *words)
            features = parse_features(plain) if isinstance(plain, bytes) else None
            return replace(settings, features=features)
        return settings
    return Unknown(why)


def _said(nix: validity.Nix, *words: str) -> bytes | Unknown:
    try:
        said = validity.run(nix, [nix.program, *words])
    except HungError as hung:
        return Unknown(str(hung))
    return said if isinstance(said, bytes) else Unknown(said)


def _sandbox(value: object) -> str | None:
    match value:
        case True | "true":
            return "true"
        case False | "false":
            return "false"
        case "relaxed":
            return "relaxed"
        case _:
            return None


def _truth(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if type(value) is int else None


def _names(value: object) -> frozenset[str] | None:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return frozenset(value)
    return None
