# SPDX-License-Identifier: MIT
"""Words in columns; processes and lock files as people read them, and as JSON."""

from collections.abc import Iterator

from storewarden.explain.locks import LockFile
from storewarden.processes import Running
from storewarden.readable import PLAIN, Mark, Style, shown, since
from storewarden.store.store import Known

_LONG = 36


def row(
    label: str, text: str, style: Style = PLAIN, lead: str = "", mark: Mark | None = None
) -> Iterator[str]:
    """`label` and beside it `lead`, as `mark`, and `text`, on as many lines as it takes."""
    first = f"    {label:<12}"
    yield from style.wrapped(first, shown(text), " " * len(first), shown(lead), mark)


def who_text(one: Running) -> str:
    """`process 12 (nix-daemon 7), root, for process 7 (nix-build)`, as far as it is known."""
    if one.command is None:
        return f"process {one.pid}, which has ended or cannot be seen"
    words = [f"process {one.pid} ({_short(one.command)})"]
    words += [one.user] if one.user else []
    if one.client is not None:
        asked = (
            f" ({_short(one.client_command)})"
            if one.client_command
            else ", not to be seen any more"
        )
        words.append(f"for process {one.client}{asked}")
    return ", ".join(words)


def _short(command: str) -> str:
    return command if len(command) <= _LONG else f"{command[:_LONG]}..."


def process_text(one: Running, now: float) -> str:
    """The same, and for how long it has been running."""
    running = "" if one.began is None else f", running for {since(one.began, now)}"
    return who_text(one) + running


def lock_text(lock: LockFile, now: float) -> str:
    """Whether it is held and by whom, and who waits."""
    match lock.held:
        case Known.UNKNOWN:
            text = "whether it is held cannot be seen here"
        case Known.NO:
            text = "nobody is seen to hold it"
            if lock.changed is not None:
                text += f"; last changed {since(lock.changed, now)} ago"
        case Known.YES:
            text = "; ".join(_held(one, now) for one in lock.holders)
    for one in lock.blocked:
        text += f"; {process_text(one, now)} waits for it"
    for one in lock.rooted or ():
        text += f"; {who_text(one)}, has a temp root on it too and may wait"
    return text


def _held(one: Running, now: float) -> str:
    """Nothing tells when a lock was taken; but not before its process began."""
    if one.began is None:
        return f"held by {who_text(one)}"
    return f"held for at most {since(one.began, now)} by {who_text(one)}"


def process_json(one: Running) -> dict[str, object]:
    """A process as a JSON object."""
    return {
        "pid": one.pid,
        "command": one.command,
        "user": one.user,
        "began": one.began,
        "client": one.client,
        "clientCommand": one.client_command,
    }


def processes_json(those: tuple[Running, ...] | None) -> list[dict[str, object]] | None:
    """Each of them; None where they cannot be seen."""
    return None if those is None else [process_json(one) for one in those]


def lock_json(lock: LockFile, store_dir: str) -> dict[str, object]:
    """A lock file as a JSON object; `store_dir` is that of what it covers."""
    deriver = lock.deriver
    return {
        "path": lock.path,
        "role": lock.role.value,
        "held": lock.held.value,
        "shared": lock.shared,
        "holders": processes_json(lock.holders),
        "blocked": processes_json(lock.blocked),
        "wantedBy": processes_json(lock.rooted),
        "changed": lock.changed,
        "sizeBytes": lock.size,
        "covers": [f"{store_dir}/{name}" for name in lock.covers],
        "deriver": deriver and f"{store_dir}/{deriver.derivation.base_name}",
        "output": deriver and deriver.output,
    }
