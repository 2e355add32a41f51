# SPDX-License-Identifier: MIT
"""Running Nix, and what root asks it: which paths are valid. The rest is in nix_queries.py.

Each question is a new process, and so a new connection: a long-lived worker would believe its own
cache for an hour (store-api.cc `isValidPath`). Exit status 1 never means "not valid" (it is also
what a stopped daemon gives), and stderr is only ever shown to people: Lix words it differently.
"""

import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired

from storewarden.errors import StorewardenError, reason_of
from storewarden.store.paths import StoreDir, StorePath
from storewarden.store.store import Fact, Known
from storewarden.strict_json import load

NIX_PLACES = (
    "/nix/var/nix/profiles/default/bin/nix",
    "/run/current-system/sw/bin/nix",
    "/usr/local/bin/nix",
    "/usr/bin/nix",
)
NEW_COMMANDS = ("--extra-experimental-features", "nix-command", "--offline")
"""What precedes the words of a `nix` command, whatever nix.conf says of these."""
_COLOUR = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Nix:
    """The Nix of one store: its program, and the state directory its daemon listens in."""

    program: str
    """Absolute path of `nix`; `nix-store` is looked for beside it."""
    store_dir: StoreDir
    state_dir: str
    timeout: float = 10.0
    """Seconds for one question. A stopped daemon never answers."""

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


def find_nix(program: str | None, places: Sequence[str] = NIX_PLACES) -> str:
    """The program to ask: that one, or the first of the usual places. PATH is never searched.

    Where none is there, the first place is given, and asking it says so.
    """
    return program or next((place for place in places if os.access(place, os.X_OK)), places[0])


class SilentError(StorewardenError):
    """Nix has given no answer; the text says why, for people."""


class HungError(SilentError):
    """It has given none in time."""


def ask(nix: Nix, paths: Sequence[StorePath]) -> dict[StorePath, Fact]:
    """For each path whether Nix has it as valid; unknown, with the reason, where it did not say.

    `nix path-info` first; where that does not answer (no nix-command, a `.drv` on 2.8, 2.3),
    `nix-store --check-validity --print-invalid`, which says the same in all versions.
    """
    try:
        return _ask(nix, paths) if paths else {}
    except SilentError as silent:
        return dict.fromkeys(paths, Fact(Known.UNKNOWN, str(silent)))


def _ask(nix: Nix, paths: Sequence[StorePath]) -> dict[StorePath, Fact]:
    full = [nix.store_dir.join(path.base_name) for path in paths]
    try:
        infos = path_info(nix, full)
    except HungError:
        raise
    except StorewardenError:
        infos = {}  # nix-store may answer all the same, or else says why not
    if all(path in infos for path in paths):
        return {path: Fact(Known.YES if infos[path] else Known.NO) for path in paths}
    answer = run(nix, [nix.nix_store, "--check-validity", "--print-invalid", *full])
    invalid = set(answer.decode("ascii", "replace").splitlines())
    if not invalid <= set(full):
        raise SilentError("nix-store gave an answer that was not asked for")
    return {
        # What either called valid is not invalid because the other says so.
        path: Fact(Known.YES if text not in invalid or infos.get(path) else Known.NO)
        for path, text in zip(paths, full, strict=True)
    }


PathInfo = Mapping[str, object]
"""What Nix has recorded of a valid path: the members of one object of `nix path-info --json`."""


def path_info(nix: Nix, full_paths: Sequence[str]) -> dict[StorePath, PathInfo | None]:
    """What `nix path-info` says of those, as `parse_path_info`; `SilentError` if it does not."""
    answer = run(nix, [nix.program, *NEW_COMMANDS, "path-info", "--json", *full_paths])
    return parse_path_info(answer, nix.store_dir)


def parse_path_info(answer: bytes, store_dir: StoreDir) -> dict[StorePath, PathInfo | None]:
    """What `nix path-info --json` says of each path, None if it is not valid, in all shapes.

    A list of objects (2.3 to 2.18, Lix: `"valid": false`), an object by full path (2.19 on:
    null), or that below `info`, by base name (`--json-format` 2 and 3). What is not plainly
    valid or plainly invalid is left out; `BadMessageError` for what is no JSON.
    """
    match load(answer):
        case list(items):
            pairs = [(item.get("path"), item) for item in items if isinstance(item, dict)]
        case {"info": dict(items)} | dict(items):
            pairs = list(items.items())
        case _:
            return {}
    infos: dict[StorePath, PathInfo | None] = {}
    doubtful: set[StorePath] = set()
    for name, value in pairs:
        path = StorePath.maybe(str(name).removeprefix(f"{store_dir.path}/"))
        if path is None:
            continue
        match value:
            case {"valid": False, "narHash": _}:
                doubtful.add(path)
            case None | {"valid": False} if not infos.get(path):
                infos[path] = None
            case {"narHash": str() | dict()} if infos.get(path, value):
                infos[path] = value
            case _:
                doubtful.add(path)
    return {path: info for path, info in infos.items() if path not in doubtful}


def run(nix: Nix, command: Sequence[str]) -> bytes:
    """What the command printed; `SilentError` if it failed, `HungError` after the timeout."""
    name = os.path.basename(command[0])
    with started(nix, command) as process:
        try:
            out, err = process.communicate(timeout=nix.timeout)
        except TimeoutExpired:
            text = f"{name} did not answer within {nix.timeout:g} s: is nix-daemon hung?"
            raise HungError(text) from None
    if process.returncode != 0:
        raise SilentError(f"{name}: {_last_words(err)}")
    return out


@contextmanager
def started(nix: Nix, command: Sequence[str], errors: int = PIPE) -> Iterator[Popen[bytes]]:
    """That command, run as Nix is run here, and ended with all it started once it is left."""
    # Ctrl-C waits until there is somebody to end. Nix never gets it: it has a session of its own.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = Popen(
            command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=errors,
            env=nix.environment(),
            cwd="/",
            start_new_session=True,
        )
    except OSError as cause:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise SilentError(f"cannot run {command[0]}: {reason_of(cause)}") from cause
    with process:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield process
        finally:
            # Only before it was waited for, else its number may be another's.
            if process.returncode is None:
                # The session, not the process alone: Nix may have started helpers of its own.
                with suppress(ProcessLookupError, PermissionError):  # macOS: only a zombie is left
                    os.killpg(process.pid, signal.SIGKILL)


def _last_words(err: bytes) -> str:
    """What it says of why it failed, for people: the last error, or else the last line."""
    plain = _COLOUR.sub(b"", err).decode("utf-8", "replace")
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    # Below an error in nix.conf stands: Try 'nix --help' for more information (main/shared.cc).
    errors = [line for line in lines if "error: " in line] or lines or ["failed and said nothing"]
    return errors[-1].encode("ascii", "backslashreplace").decode()[:300]
