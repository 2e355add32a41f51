# SPDX-License-Identifier: MIT
"""The story of an entry for a tired person."""

import stat
from collections.abc import Iterator

from storewarden.claims import PROOF, Verdict
from storewarden.explain.advice import Advice
from storewarden.explain.kept import Answer
from storewarden.explain.story import Story, What
from storewarden.explain.uses import Uses
from storewarden.readable import PLAIN, Mark, Style, count_text, moment, shown, since, size_text
from storewarden.report.columns import lock_text, process_text, row
from storewarden.store.entries import EntryKind
from storewarden.store.fact import Known

MOST = 8
"""Lines of one kind; the rest is counted, and is in the JSON."""
_STATES = {
    What.VALID: "valid",
    What.MISSING: "NOT THERE, but registered as valid",
    What.ABSENT: "not there, and not valid",
    What.UNREGISTERED: "there, but not valid: registered nowhere",
    What.LEFTOVER: "what an interrupted removal by storewarden left",
    What.SHARED_FILE: "a file that valid paths share, for `nix-store --optimise`",
    What.UNKNOWN: "there; whether it is valid is not known",
}
_MARKS = {What.VALID: Mark.WELL, What.MISSING: Mark.WRONG}
_SAID = {
    Verdict.KEEP: "keep it",
    Verdict.CANDIDATE: "remove it, once root has proved it dead",
    Verdict.REMOVABLE: "remove it",
}
_TYPES = ((stat.S_ISDIR, "directory"), (stat.S_ISLNK, "symbolic link"), (stat.S_ISREG, "file"))


def story_lines(story: Story, advised: tuple[Advice, ...], style: Style = PLAIN) -> Iterator[str]:
    """One block, the path first; what cannot be seen is said to be unknown."""
    yield style.mark(Mark.NAME, shown(story.path))
    if story.pointed.through or story.pointed.inside:
        yield from row("asked for", "; ".join([story.pointed.asked, *story.pointed.through]), style)
    mark, lead, state = _MARKS.get(story.what), _STATES[story.what], _state(story)
    if mark is None or not state.startswith(lead):
        yield from row("state", state, style)
    else:
        yield from row("state", state.removeprefix(lead), style, lead, mark)
    for label, text in (("kind", ", ".join(_kind(story))), *_origin(story), *_claims(story)):
        yield from row(label, text, style)
    for text in would(story):
        said, colon, why = text.partition(":")
        yield from row("storewarden", f"{colon}{why}", style, said, _would_mark(said))
    for one in advised:
        yield from row("you", f"{one.purpose}:" if one.command else one.purpose, style)
        if one.command:
            yield f"{'':16}  {style.mark(Mark.NAME, shown(one.command))}"


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


def _would_mark(said: str) -> Mark | None:
    """Of what would be done: `remove it, ...`, `keep it`, or no more than a report."""
    match said.split(maxsplit=1)[0]:
        case "remove" | "finish":
            return Mark.WELL
        case "keep":
            return Mark.KEPT
        case _:
            return None


def _state(story: Story) -> str:
    text = _STATES[story.what]
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
    ways = {use.pid: use.ways for use in story.uses.seen}
    for one in story.users[:MOST]:
        yield "process", f"{process_text(one, story.now)}: {', '.join(ways[one.pid])}"
    if len(story.users) > MOST:
        yield "", f"and {len(story.users) - MOST} more"
    if text := _unseen(story.uses):
        yield "" if story.users else "processes", text


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
    for line in answer.lines[:MOST]:
        yield label, line.removesuffix(without)
    if not answer.lines:
        yield label, "none"
    elif len(answer.lines) > MOST:
        yield "", f"and {len(answer.lines) - MOST} more"


def would(story: Story) -> Iterator[str]:
    """What `storewarden scan --yes` would do about it, and why."""
    match story.what:
        case What.VALID:
            yield "leave it alone: it never touches a valid path"
        case What.MISSING:
            yield "only report it: it never changes the database"
        case What.ABSENT:
            yield "nothing: there is nothing"
        case What.SHARED_FILE:
            yield "leave it alone: it never touches .links"
        case What.LEFTOVER:
            yield "finish the removal, or undo it"
        case _ if story.finding is None:
            yield "leave it alone"
        case _:
            judgement = story.finding.judgement
            said = _SAID[judgement.verdict] if story.finding.kind in PROOF else "only report it"
            if story.finding.kind is EntryKind.CHROOT and judgement.verdict is not Verdict.KEEP:
                said += " (only with --kind chroot)"
            for reason in judgement.reasons:
                yield f"{said}: {reason}"
