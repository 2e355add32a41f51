# SPDX-License-Identifier: MIT
"""Asking Nix itself whether paths are valid: a new process, and so a new connection, each time.

A long-lived worker would believe its own cache for an hour (store-api.cc `isValidPath`). Exit
status 1 never means "not valid" (it is also what a stopped daemon gives), and stderr is only
ever shown to people: Lix words it differently.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from storewarden.errors import reason_of
from storewarden.store.fact import Fact, Known
from storewarden.store.paths import StoreDir, StorePath
from storewarden.strict_json import unique

BATCH = 200
NIX_PLACES = (
    "/nix/var/nix/profiles/default/bin/nix",
    "/run/current-system/sw/bin/nix",
    "/usr/local/bin/nix",
    "/usr/bin/nix",
)
_EVALUATES_NOTHING = ("--extra-experimental-features", "nix-command", "--offline")
_COLOUR = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Nix:
    """The Nix of one store: its program, and the state directory its daemon listens in."""

    program: str
    """Absolute path of `nix`; `nix-store` is looked for beside it."""
    store_dir: StoreDir
    state_dir: str
    timeout: float = 10.0
    """Seconds for one question of up to 200 paths. A stopped daemon never answers."""

    @property
    def nix_store(self) -> str:
        """The program of that name, beside it."""
        return os.path.join(os.path.dirname(self.program), "nix-store")

    def environment(self) -> dict[str, str]:
        """All that Nix sees of ours: nothing of the caller's, so no plugin and no other store.

        It goes through the daemon where there is one: as root Nix would otherwise open the store
        itself, chown it, and remount it (store-registration.cc, local-store.cc, 2.34.6).
        """
        base = {"PATH": "/usr/bin:/bin", "HOME": "/dev/null", "LC_ALL": "C", "NO_COLOR": "1"}
        if self.store_dir.path != "/nix/store":
            base["NIX_STORE_DIR"] = self.store_dir.path
        if self.state_dir != "/nix/var/nix":
            base["NIX_STATE_DIR"] = self.state_dir
        if os.path.exists(f"{self.state_dir}/daemon-socket/socket"):
            base["NIX_REMOTE"] = "daemon"
        return base


def find_nix(wanted: str | None, places: Sequence[str] = NIX_PLACES) -> str:
    """The program to ask: `wanted`, or the first of the usual places. PATH is never searched.

    Where none is there, the first place is given, and asking it says so.
    """
    return wanted or next((place for place in places if os.access(place, os.X_OK)), places[0])


class HungError(Exception):
    """Nix did not answer in time."""


def ask(nix: Nix, paths: Sequence[StorePath]) -> dict[StorePath, Fact]:
    """For each path whether Nix has it as valid; unknown, with the reason, where it did not say.

    `nix path-info` first; where that does not answer (no nix-command, a `.drv` on 2.8, 2.3),
    `nix-store --check-validity --print-invalid`, which says the same in all versions.
    """
    answers: dict[StorePath, Fact] = {}
    for start in range(0, len(paths), BATCH):
        try:
            answers |= _ask_batch(nix, paths[start : start + BATCH])
        except HungError as hung:
            # One wait is enough: what hangs now would hang for every batch to come.
            return answers | _unknown(paths[start:], str(hung))
    return answers


def _ask_batch(nix: Nix, paths: Sequence[StorePath]) -> dict[StorePath, Fact]:
    full = [nix.store_dir.join(path.base_name) for path in paths]
    answered = run(nix, [nix.program, *_EVALUATES_NOTHING, "path-info", "--json", *full])
    known: dict[StorePath, Known] = {}
    if isinstance(answered, bytes):
        known = parse_path_info(answered, nix.store_dir)
        if all(path in known for path in paths):
            return {path: Fact(known[path]) for path in paths}
    answered = run(nix, [nix.nix_store, "--check-validity", "--print-invalid", *full])
    if not isinstance(answered, bytes):
        return _unknown(paths, answered)
    invalid = set(answered.decode("ascii", "replace").splitlines())
    if not invalid <= set(full):
        return _unknown(paths, "nix-store gave an answer that was not asked for")
    return {
        # What either called valid is not invalid because the other says so.
        path: Fact(Known.YES if text not in invalid or known.get(path) is Known.YES else Known.NO)
        for path, text in zip(paths, full, strict=True)
    }


def parse_path_info(answer: bytes, store_dir: StoreDir) -> dict[StorePath, Known]:
    """What `nix path-info --json` says, in all the shapes it has had.

    A list of objects (2.3 to 2.18, Lix: `"valid": false`), an object by full path (2.19 on:
    null), or that below `info`, by base name (`--json-format` 2 and 3). What is not plainly
    valid or plainly invalid is left out.
    """
    try:
        document = json.loads(answer, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return {}
    match document:
        case list(items):
            pairs: Iterable[tuple[object, object]] = (
                (item.get("path"), item) for item in items if isinstance(item, dict)
            )
        case {"info": dict(items)} | dict(items):
            pairs = items.items()
        case _:
            return {}
    known: dict[StorePath, Known] = {}
    for name, value in pairs:
        path = StorePath.maybe(str(name).removeprefix(f"{store_dir.path}/"))
        said = _said(value)
        if path is not None:
            known[path] = said if known.get(path, said) is said else Known.UNKNOWN
    return {path: said for path, said in known.items() if said is not Known.UNKNOWN}


def _said(value: object) -> Known:
    match value:
        case {"valid": False, "narHash": _}:
            return Known.UNKNOWN
        case None | {"valid": False}:
            return Known.NO
        case {"narHash": str() | dict()}:
            return Known.YES
        case _:
            return Known.UNKNOWN


def _unknown(paths: Sequence[StorePath], reason: str) -> dict[StorePath, Fact]:
    return {path: Fact(Known.UNKNOWN, reason) for path in paths}


def run(nix: Nix, command: Sequence[str]) -> bytes | str:
    """What the command printed, or why it has no answer; `HungError` after the timeout."""
    name = os.path.basename(command[0])
    # Ctrl-C waits until there is somebody to end. Nix never gets it: it has a session of its own.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=nix.environment(),
            cwd="/",
            start_new_session=True,
        )
    except OSError as cause:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return f"cannot run {command[0]}: {reason_of(cause)}"
    with process:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            out, err = process.communicate(timeout=nix.timeout)
        except subprocess.TimeoutExpired:
            _kill(process)
            raise HungError(
                f"{name} did not answer within {nix.timeout:.0f} s: is nix-daemon hung?"
            ) from None
        finally:
            if process.poll() is None:
                _kill(process)
    if process.returncode != 0:
        return f"{name}: {_told(err)}"
    return out


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the session, not the process alone: Nix may have started helpers of its own.

    Only before the process was waited for, else its number may be another's.
    """
    with suppress(ProcessLookupError, PermissionError):  # macOS: only a zombie is left
        os.killpg(process.pid, signal.SIGKILL)


def _told(err: bytes) -> str:
    """What it says of why it failed, for people: the last error, or else the last line."""
    plain = _COLOUR.sub(b"", err).decode("utf-8", "replace")
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    # Below an error in nix.conf stands: Try 'nix --help' for more information (main/shared.cc).
    told = [line for line in lines if "error: " in line] or lines or ["failed and said nothing"]
    return told[-1].encode("ascii", "backslashreplace").decode()[:300]
