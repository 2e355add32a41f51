# SPDX-License-Identifier: MIT
"""Stories and lock files as JSON (docs/json.md)."""

from collections.abc import Iterable, Sequence

from storewarden.explain.advice import Advice
from storewarden.explain.kept import Answer
from storewarden.explain.locks import LockFile
from storewarden.explain.story import Story
from storewarden.processes import Running
from storewarden.readable import json_text
from storewarden.report.columns import process_json
from storewarden.report.story import would
from storewarden.store.store import Store

Told = tuple[Story, tuple[Advice, ...]]


def stories_json(told: Sequence[Told], store: Store, notes: Iterable[str]) -> str:
    """The document of `storewarden explain --json`."""
    return json_text(
        {
            "storeDir": store.store_dir.path,
            "stateDir": store.state_dir,
            "paths": [_story(story, advised) for story, advised in told],
            "notes": list(notes),
        }
    )


def locks_json(locks: Iterable[LockFile], store: Store, notes: Iterable[str]) -> str:
    """The document of `storewarden locks --json`."""
    return json_text(
        {
            "storeDir": store.store_dir.path,
            "stateDir": store.state_dir,
            "locks": [_lock(lock, store.store_dir.path) for lock in locks],
            "notes": list(notes),
        }
    )


def _story(story: Story, advised: tuple[Advice, ...]) -> dict[str, object]:
    top = story.path.removesuffix(story.pointed.base_name).rstrip("/")
    finding, registered = story.finding, story.registered
    return {
        "asked": story.pointed.asked,
        "path": story.path,
        "inside": story.pointed.inside,
        "links": list(story.pointed.through),
        "state": story.what.value,
        "valid": story.valid.known.value,
        "registrationTime": registered and registered.time,
        "narSize": registered and registered.nar_size,
        "ca": registered and registered.content_address,
        "deriver": registered and registered.deriver,
        "kind": finding and finding.kind.value,
        "owner": story.entry
        and {"uid": story.entry.uid, "gid": story.entry.gid, "name": story.owner_name},
        "changed": story.entry and story.entry.ctime,
        "sizeBytes": finding and finding.size,
        "outputOf": [
            {"deriver": f"{top}/{one.derivation.base_name}", "output": one.output}
            for one in story.derivers
        ],
        "outputs": [
            {"name": o.name, "path": o.path, "scratch": o.scratch, "there": o.there}
            for o in story.outputs
        ],
        "locks": [_lock(lock, top) for lock in story.locks],
        "userLock": story.user_lock and _lock(story.user_lock, top),
        "collector": story.collector and _lock(story.collector, top),
        "tempRoots": _processes(story.rooted),
        "processes": [
            {**process_json(one), "ways": list(use.ways)}
            for one, use in zip(story.users, story.uses.seen, strict=True)
        ],
        "processesUnseen": story.uses.unseen,
        "referrers": _answer(story.referrers),
        "roots": _answer(story.roots),
        "verdict": finding and finding.judgement.verdict.value,
        "would": list(would(story)),
        "advice": [{"purpose": a.purpose, "command": a.command or None} for a in advised],
    }


def _lock(lock: LockFile, store_dir: str) -> dict[str, object]:
    deriver = lock.deriver
    return {
        "path": lock.path,
        "role": lock.role.value,
        "held": lock.held.value,
        "shared": lock.shared,
        "holders": _processes(lock.holders),
        "blocked": _processes(lock.blocked),
        "wantedBy": _processes(lock.rooted),
        "changed": lock.changed,
        "sizeBytes": lock.size,
        "covers": [f"{store_dir}/{name}" for name in lock.covers],
        "deriver": deriver and f"{store_dir}/{deriver.derivation.base_name}",
        "output": deriver and deriver.output,
    }


def _processes(those: tuple[Running, ...] | None) -> list[dict[str, object]] | None:
    return None if those is None else [process_json(one) for one in those]


def _answer(answer: Answer | None) -> list[str] | None:
    return None if answer is None or answer.problem else list(answer.lines)
