# SPDX-License-Identifier: MIT
"""`storewarden explain PATH...`: what is looked at, and shown, for people and as JSON."""

import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from storewarden.audit_reading import NothingRecordedError, Removal, read_records, removals
from storewarden.claims import PROOF, Verdict
from storewarden.cli import console
from storewarden.cli.audit import asked_by, removal_json, unix_time
from storewarden.config import Config
from storewarden.daemon.status import BUILT_ON_REMAINS, Doubtful, read_status
from storewarden.errors import StorewardenError, UnavailableError
from storewarden.explain.advice import Advice, advice, advice_on_doubtful
from storewarden.explain.entry import (
    Answer,
    Story,
    Uses,
    What,
    point,
    story_of_entry,
)
from storewarden.explain.locks import lock_json, lock_text, process_text
from storewarden.observe import observe, open_nix, open_store, this_store
from storewarden.readable import (
    PLAIN,
    Mark,
    Style,
    ThisStore,
    can_be_copied,
    count_text,
    json_text,
    members,
    moment,
    shown,
    since,
    size_text,
)
from storewarden.store.entries import EntryKind
from storewarden.store.store import Known, Store

_MOST = 8
"""Lines of one kind; the rest is counted, and is in the JSON."""
_WORDS = {
    What.VALID: ("valid", "leave it alone: it never touches a valid path"),
    What.MISSING: (
        "NOT THERE, but registered as valid",
        "only report it: it never changes the database",
    ),
    What.ABSENT: ("not there, and not valid", "nothing: there is nothing"),
    What.UNREGISTERED: ("there, but not valid: registered nowhere", "leave it alone"),
    What.LEFTOVER: (
        "what an interrupted removal by storewarden left",
        "finish the removal, or undo it",
    ),
    What.SHARED_FILE: (
        "a file that valid paths share, for `nix-store --optimise`",
        "leave it alone: it never touches .links",
    ),
    What.UNKNOWN: ("there; whether it is valid is not known", "leave it alone"),
}
"""What it is, and what `scan --yes` would do about it if nothing more is to be said."""
_MARKS = {What.VALID: Mark.WELL, What.MISSING: Mark.WRONG}
_ACTS = {
    Verdict.KEEP: "keep it",
    Verdict.CANDIDATE: "remove it, once root has proved it dead",
    Verdict.REMOVABLE: "remove it",
}
_ACT_MARKS = {"remove": Mark.WELL, "finish": Mark.WELL, "keep": Mark.KEPT}
"""By the first word of what would be done; a report has none."""
_TYPES = ((stat.S_ISDIR, "directory"), (stat.S_ISLNK, "symbolic link"), (stat.S_ISREG, "file"))

_LOG = "sudo storewarden audit log"
Explained = tuple[Story, tuple[Advice, ...], Doubtful | None, tuple[Removal, ...] | None]
"""What is known of an entry, what may be done, what the service knows against it, and what was done
here before; None where that cannot be read."""


def explain_paths(config: Config, asked: Sequence[str], *, as_json: bool) -> str:
    """Show what can be learned of each of those entries; gives why Nix was silent, or nothing.

    `NotInStoreError` before anything is shown, if one leads to nothing in the store.
    """
    pointed = [point(one, config.store_dir) for one in asked]
    store, nix, this = open_store(config), open_nix(config), this_store(config)
    explained: list[Explained] = []
    history = _history(config)
    doubts = _doubts(config)
    for number, one in enumerate(pointed):
        with console.progress(f"looking at {one.base_name}"), observe(store) as seen:
            seen.check_place()
            story = story_of_entry(seen, nix, one)
        advised = advice(story, this)
        gone = None if history is None else _of(story, history)
        doubt = doubts.get(one.base_name) if story.what is What.VALID else None
        if doubt is not None:
            drv = config.store_dir.join(doubt.derivation)
            advised = (*advice_on_doubtful(story.path, drv, this), *advised)
        explained.append((story, advised, doubt, gone))
        if not as_json:
            for line in ([""] if number else []) + list(
                story_lines(story, advised, console.style(), doubt, gone or ())
            ):
                console.show(line)
    stories = [story for story, *_ in explained]
    notes = [note for story in stories for note in story.notes]
    notes = list(dict.fromkeys(notes + _limits(stories, this)))
    if history is None and any(story.what is What.ABSENT for story in stories):
        notes.append(f"whether it was removed here, root can tell: {this.command(_LOG)}")
    for text in notes:
        console.note(text)
    if as_json:
        console.show(stories_json(explained, store, notes))
    return next((s.valid.detail for s in stories if s.valid.known is Known.UNKNOWN), "")


def _history(config: Config) -> list[Removal] | None:
    """Every removal on record; None where this user may not read that."""
    try:
        return removals(read_records(config.audit_log))
    except NothingRecordedError:
        return []
    except UnavailableError:
        return None


def _of(story: Story, history: Iterable[Removal]) -> tuple[Removal, ...]:
    """What was done about that entry, newest first."""
    name = story.pointed.base_name
    return tuple(reversed([one for one in history if one.name == name]))


def _doubts(config: Config) -> dict[str, Doubtful]:
    """By name the paths of which the service says that they may hold stale files."""
    status = None
    with suppress(StorewardenError):  # that it cannot be read is told by `storewarden status`
        status = read_status(config.runtime_dir)
    if status is None or status.store_dir != config.store_dir.path:
        return {}
    return {one.name: one for one in status.doubtful}


def _limits(stories: Sequence[Story], this: ThisStore) -> list[str]:
    if os.geteuid() == 0 or not any(map(_dim, stories)):
        return []
    command = shlex.join(["sudo", "storewarden", "explain", *(story.path for story in stories)])
    shown = f": {this.command(command)}" if can_be_copied(command) else ""
    return [f"as root more can be seen{shown}"]


def _dim(story: Story) -> bool:
    """Whether something could not be seen that root may see."""
    censored = story.roots is not None and any("{" in line for line in story.roots.lines)
    return (
        bool(story.rooted is None or story.uses.unseen or story.uses.unseen is None or censored)
        and story.what is not What.SHARED_FILE
    )


def story_lines(
    story: Story,
    advised: tuple[Advice, ...],
    style: Style = PLAIN,
    doubt: Doubtful | None = None,
    gone: Sequence[Removal] = (),
) -> Iterator[str]:
    """One block, the path first; what cannot be seen is said to be unknown."""
    yield style.mark(Mark.NAME, shown(story.path))
    if story.pointed.through or story.pointed.inside:
        yield from style.row("asked for", "; ".join([story.pointed.asked, *story.pointed.through]))
    mark, lead, state = _MARKS.get(story.what), _WORDS[story.what][0], _state(story)
    lead = lead if mark and state.startswith(lead) else ""
    yield from style.row("state", state.removeprefix(lead), lead, mark)
    if doubt is not None:
        when = f" ({moment(doubt.since, story.now)})"
        yield from style.row("DOUBTFUL", f"{BUILT_ON_REMAINS}{when}")
    for before in gone[:_MOST]:
        yield from style.row("history", _told(before, story.now), before.status)
    for label, text in (("kind", ", ".join(_kind(story))), *_origin(story), *_claims(story)):
        yield from style.row(label, text)
    for text in would(story):
        act, colon, why = text.partition(":")
        yield from style.row("storewarden", f"{colon}{why}", act, _ACT_MARKS.get(act.split()[0]))
    for one in advised:
        yield from style.row("you", f"{one.purpose}:" if one.command else one.purpose)
        if one.command:
            yield f"{'':16}  {style.mark(Mark.NAME, shown(one.command))}"


def _told(one: Removal, now: float) -> str:
    """When it was removed, or kept, for whom and why; what stands before it is how that ended."""
    at, intent = unix_time(one.time), one.intent
    parts = [f" on {moment(at, now) if at is not None else one.time}, {asked_by(one)}"]
    if intent.deriver:
        parts.append(f"it was output {intent.output or 'unknown'} of {intent.deriver}")
    if intent.absent:
        parts.append(f"nothing claimed it ({', '.join(intent.absent)} were looked for)")
    return "; ".join([*parts, *one.reasons])


def _claims(story: Story) -> Iterator[tuple[str, str]]:
    for lock in story.locks:
        yield "lock", f"{lock.path.rpartition('/')[2]}: {lock_text(lock, story.now)}"
    if story.user_lock is not None:
        yield "build user", lock_text(story.user_lock, story.now)
    yield "temp roots", _temp_roots(story)
    yield from _processes(story)
    yield "collector", _collector(story)
    yield from _answer("referrers", story.referrers)
    # Of a root on itself the link alone, else also what it is on that needs this.
    yield from _answer("roots", story.roots, f" -> {story.path}")


def _state(story: Story) -> str:
    text = _WORDS[story.what][0]
    if story.what is What.ABSENT and story.valid.known is Known.UNKNOWN:
        text = "not there; whether it is registered is not known"
    if story.finding is not None and story.finding.kind is EntryKind.LOCK:
        return "there, as lock files of builds and copies are: never valid"
    if story.registered and story.registered.time:
        text += f" since {moment(story.registered.time, story.now)}"
    if story.what is What.UNKNOWN or (story.valid.known is not Known.YES and story.valid.detail):
        text += f" ({story.valid.detail})"
    return text


def _kind(story: Story) -> Iterator[str]:
    entry, finding, registered = story.entry, story.finding, story.registered
    if finding is not None:
        yield "lock file" if finding.kind is EntryKind.LOCK else finding.kind.value
    elif story.path.endswith(".drv"):
        yield "derivation"
    elif registered is not None:
        yield "content-addressed path" if registered.content_address else "store path"
    if entry is None:
        yield "nothing is there"
        return
    yield next((name for test, name in _TYPES if test(entry.mode)), "special file")
    yield f"owner {story.owner_name or 'without a name'} (uid {entry.uid})"
    yield f"last changed {since(entry.ctime, story.now)} ago"
    if finding is not None and finding.size is not None and finding.kind is not EntryKind.LOCK:
        yield f"{'' if finding.size_complete else 'at least '}{size_text(finding.size)}"
    if registered is not None and registered.nar_size:
        yield size_text(registered.nar_size)


def _origin(story: Story) -> Iterator[tuple[str, str]]:
    for deriver in story.derivers:
        yield "output", f"{deriver.output} of {deriver.derivation.base_name}"
    if story.registered and story.registered.deriver:
        yield "deriver", story.registered.deriver.rpartition("/")[2]
    for output in story.outputs:
        how = "scratch path of its builds: " if output.scratch else ""
        there = "is there" if output.there else "is not there"
        yield "output", f"{output.name}: {how}{output.path.rpartition('/')[2]}, {there}"


def _temp_roots(story: Story) -> str:
    if story.rooted is None:
        return "cannot be read by this user"
    if not story.rooted:
        return "none"
    return "; ".join(process_text(one, story.now) for one in story.rooted)


def _processes(story: Story) -> Iterator[tuple[str, str]]:
    uses = story.uses.seen
    for use in uses[:_MOST]:
        yield "process", f"{process_text(use.process, story.now)}: {', '.join(use.ways)}"
    if len(uses) > _MOST:
        yield "", f"and {len(uses) - _MOST} more"
    if text := _unseen(story.uses):
        yield "" if uses else "processes", text


def _unseen(uses: Uses) -> str:
    if uses.unseen is None:
        return "cannot be seen here"
    text = f"{count_text(uses.unseen, 'process')} could not be looked into" if uses.unseen else ""
    return text if uses.seen else "; ".join(filter(None, ["none seen to use it", text]))


def _collector(story: Story) -> str:
    lock = story.collector
    if lock is None or lock.held is Known.NO or lock.shared:
        return "not at work"
    if lock.held is Known.UNKNOWN:
        return "whether it is at work cannot be seen here"
    return f"AT WORK: {'; '.join(process_text(one, story.now) for one in lock.holders)}"


def _answer(label: str, answer: Answer | None, without: str = "") -> Iterator[tuple[str, str]]:
    if answer is None:
        return
    if answer.problem:
        yield label, f"unknown: {answer.problem}"
        return
    for line in answer.lines[:_MOST]:
        yield label, line.removesuffix(without)
    if not answer.lines:
        yield label, "none"
    elif len(answer.lines) > _MOST:
        yield "", f"and {len(answer.lines) - _MOST} more"


def would(story: Story) -> Iterator[str]:
    """What `storewarden scan --yes` would do about it, and why."""
    finding = story.finding
    if finding is None or story.what not in {What.UNREGISTERED, What.UNKNOWN}:
        yield _WORDS[story.what][1]
        return
    judgement = finding.judgement
    act = _ACTS[judgement.verdict] if finding.kind in PROOF else "only report it"
    if finding.kind is EntryKind.CHROOT and judgement.verdict is not Verdict.KEEP:
        act += " (only with --kind chroot)"
    # Of what is only reported the others say what to do, as the advice does.
    for reason in judgement.reasons if finding.kind in PROOF else judgement.reasons[:1]:
        yield f"{act}: {reason}"


def stories_json(explained: Iterable[Explained], store: Store, notes: Iterable[str]) -> str:
    """The document of `storewarden explain --json`."""
    return json_text(
        {
            "storeDir": store.store_dir.path,
            "stateDir": store.state_dir,
            "paths": [
                {
                    **_story_json(story, advised, doubt),
                    "removals": None
                    if gone is None
                    else [removal_json(one, store.store_dir.path) for one in gone],
                }
                for story, advised, doubt, gone in explained
            ],
            "notes": list(notes),
        }
    )


def _story_json(
    story: Story, advised: tuple[Advice, ...], doubt: Doubtful | None
) -> dict[str, object]:
    top = story.path.removesuffix(story.pointed.base_name).rstrip("/")
    finding, registered = story.finding, story.registered
    return {
        "asked": story.pointed.asked,
        "path": story.path,
        "inside": story.pointed.inside,
        "links": story.pointed.through,
        "state": story.what,
        "valid": story.valid.known,
        "registrationTime": registered and registered.time,
        "narSize": registered and registered.nar_size,
        "ca": registered and registered.content_address,
        "deriver": registered and registered.deriver,
        "kind": finding and finding.kind,
        "owner": story.entry
        and {"uid": story.entry.uid, "gid": story.entry.gid, "name": story.owner_name},
        "changed": story.entry and story.entry.ctime,
        "sizeBytes": finding and finding.size,
        "outputOf": [
            {"deriver": f"{top}/{one.derivation.base_name}", "output": one.output}
            for one in story.derivers
        ],
        "outputs": story.outputs,
        "locks": [lock_json(lock, top) for lock in story.locks],
        "userLock": story.user_lock and lock_json(story.user_lock, top),
        "collector": story.collector and lock_json(story.collector, top),
        "tempRoots": story.rooted,
        "processes": [{**members(use.process), "ways": use.ways} for use in story.uses.seen],
        "processesUnseen": story.uses.unseen,
        "referrers": _answer_json(story.referrers),
        "roots": _answer_json(story.roots),
        "doubtfulSince": doubt and doubt.since,
        "verdict": finding and finding.judgement.verdict,
        "would": list(would(story)),
        "advice": [{"purpose": a.purpose, "command": a.command or None} for a in advised],
    }


def _answer_json(answer: Answer | None) -> tuple[str, ...] | None:
    return None if answer is None or answer.problem else answer.lines
