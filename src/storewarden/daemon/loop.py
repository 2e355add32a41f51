# SPDX-License-Identifier: MIT
"""The service: what it does when, what it remembers, and what it tells of itself.

One thread does all the work, and it alone tells systemd that it is well. A whole sweep at the
start, on a timer, and whenever the system lost count; between them only what changes is looked at.
"""

import os
import signal
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace

from storewarden import __version__
from storewarden.claims import PROOF
from storewarden.client import (
    HelperUnavailableError,
    Remove,
    open_remover,
    removes_here,
    request_for,
    requests_for,
)
from storewarden.config import Config, ConfigError, Mode
from storewarden.daemon import watch
from storewarden.daemon.agenda import NEVER, Agenda
from storewarden.daemon.log import Log, Notify, notifying, reloading, watchdog_interval
from storewarden.daemon.remains import LOOK_SECONDS, Remains
from storewarden.daemon.status import WAITS, Removed, ServiceStatus, Stuck, held, write_status
from storewarden.errors import StoreUnreadableError, StorewardenError
from storewarden.observe import Observation, observe, open_store, registered_bytes
from storewarden.protocol import CANNOT_BE_PUT_BACK, Outcome, RemoveRequest, Status
from storewarden.scan import Finding, Glance, glance, look_among, sweep
from storewarden.store.entries import EntryKind
from storewarden.store.store import Store

_BEAT_SECONDS = 60.0
"""The status is written at least so often."""
_LOOK_SECONDS = 5.0
"""Nothing tells that the directory itself is another: mounted over, or away. It is looked at."""
_SOCKET_SECONDS, _SOCKET_PAUSE = 5.0, 0.1
_PACE_SECONDS, _PACE = 0.1, 2.0
"""Between two rounds: as long as the last one took, so many times, and at most so long. In a big
build many entries are looked at together, and who has just died is looked at at once."""
_MOST_LISTED = 100
"""Of stuck entries, and of doubtful paths, that the status lists; it counts all."""
_MOST_RECENT = 20
"""Of the removals that the status lists."""
_ENDS = (watch.Signalled(signal.SIGTERM), watch.Signalled(signal.SIGINT))
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class Ended(Exception):  # noqa: N818 - it is no error
    """Told to end while somebody else is waited for, who goes on alone."""


def serve(load: Callable[[], Config], log: Log) -> None:
    """Watch and repair until told to end. `load` reads the configuration, again at each reload.

    A `StorewardenError` where it cannot begin: the configuration is wrong, another service
    runs, or the helper was never set up.
    """
    config = load()
    with notifying() as notify, watch.inbox(*_SIGNALS) as events, held(config.runtime_dir):
        loop = Loop(config, open_store(config), log, events, notify)
        loop.begin()
        loop.recall()
        with suppress(Ended):
            loop.run(load)
        loop.end()
        notify("STOPPING=1\nSTATUS=ended")
        log.info("ended", removed=sum(loop.tally.removed.values()))


@dataclass(slots=True)
class _Asked:
    """What the helper was asked for and has not yet answered to its end."""

    changed: Mapping[str, float]
    """Of each entry its last change, as a Unix time: for what was stranded, when it was."""
    waiting: set[str]
    """The entries of which nothing was heard, or only that they were taken."""
    partial: list[str] = field(default_factory=list)
    """What could not be purged to its end, and why."""
    away: list[str] = field(default_factory=list)
    """What may be wanted and could not be put back in its place, and why."""


@dataclass(slots=True)
class Loop:
    """The service at work; `config`, `store` and `remove` change with a reload."""

    config: Config
    store: Store
    log: Log
    inbox: watch.Inbox
    notify: Notify
    remove: Remove = lambda _: iter(())
    agenda: Agenda = field(default_factory=Agenda)
    remains: Remains = field(init=False)
    remains_at: float = NEVER.due
    """When to look at what builds may go on in; by the monotonic clock."""
    changed: dict[str, None] = field(default_factory=dict)
    """Names of which an event told, which are to be looked at, in that order."""
    closed: set[str] = field(default_factory=set)
    rests_until: float = 0.0
    """When suspects are looked at next, at the earliest; by the monotonic clock."""
    ended: bool = False
    """Told to end: nothing new is begun then."""
    reload: bool = False
    asked: _Asked | None = None
    found: dict[str, EntryKind] = field(default_factory=dict)
    """What was found and has not gone since."""
    tally: ServiceStatus = field(
        default_factory=lambda: ServiceStatus(
            os.getpid(), time.time(), 0.0, "", "", program_version=__version__
        )
    )
    """Its counts and problems; `status` fills in what follows from the rest."""
    latest: ServiceStatus | None = None
    """What it last wrote of itself."""
    tell_at: float = 0.0
    """When to write it again, by the monotonic clock."""

    def __post_init__(self) -> None:
        """Nothing is followed yet."""
        self.remains = Remains(self.config.store_dir, self.log.warning)

    # Its life: begin, watch, work, reload

    def begin(self) -> None:
        """Open what it works with. `HelperUnavailableError` where no helper was ever set up."""
        config, here = self.config, removes_here(self.store)
        if config.mode is Mode.REPAIR and not here and not _comes(config.socket):
            raise HelperUnavailableError(
                f"there is no helper: {config.socket} does not exist; set it up with: sudo"
                ' storewarden setup; or only report, with mode = "report" in the configuration'
            )
        self._open()

    def recall(self) -> None:
        """Learn which paths an earlier service has found doubtful."""
        if problem := self.remains.recall(self.config.runtime_dir):
            self.log.error("problem", where="status", text=problem)

    def run(self, load: Callable[[], Config]) -> None:
        """Work until told to end; on a reload the configuration is read again."""
        while not self._is_to_end():
            with ExitStack() as stack:
                self._serve(self._watch(stack), stack)
            if self.reload:
                self._reload(load)

    def end(self) -> None:
        """Say that this is its last word: who finds it later knows that nothing went wrong."""
        self.tally.ended = True
        self._tell()

    def _open(self) -> None:
        """Open store and remover again: build users, mounts and configuration may have changed."""
        # Thousands of paths take Nix a while: a sign of life before each batch.
        self.store = open_store(self.config, lambda _asked, _all: self._go_on())
        try:
            # A helper of its own is not left to go on alone: it would be killed with this process.
            leave = (lambda: None) if removes_here(self.store) else self._leave_if_ended
            self.remove = open_remover(
                self.config, self.store, "by the service", leave, lambda: self.ended
            )
        except StorewardenError as cause:
            self._problem("helper", str(cause))

    def _watch(self, stack: ExitStack) -> watch.Watching:
        """Watch the store directory in the way that is to be trusted there."""
        directory, interval = self.config.store_dir.path, self.config.poll_interval
        how = watch.how_to_watch(directory)
        try:
            found = stack.enter_context(watch.watching(directory, how, interval, self.inbox))
            self._problem("wakes", "")
        except OSError as cause:
            # No inotify instance left, say (fs.inotify.max_user_instances).
            self._problem("wakes", f"{watch.INOTIFY} is not to be had: {cause}; polling instead")
            found = stack.enter_context(
                watch.watching(directory, watch.POLLING, interval, self.inbox)
            )
        self.tally.wakes = found.how
        self.remains.hears = found.how == watch.INOTIFY
        return found

    def _serve(self, watched: watch.Watching, stack: ExitStack) -> None:
        """Work until told to end or to reload, or until the watch is over."""
        self._sweep()
        self._finish()
        self._tell()
        self.log.info(
            "watching",
            version=__version__,
            store=self.config.store_dir.path,
            mode=self.config.mode.value,
            wakes=self.tally.wakes,
        )
        self.notify("READY=1")
        self._answer_prometheus(stack)
        while watched.lasts() and not self.ended and not self.reload:
            if self._work() or time.monotonic() >= self.tell_at:
                self._tell()
            self._heed(self._patience())
        if not watched.lasts():
            self.log.warning(
                "the watch ended by itself (is the store mounted anew?); it is renewed"
            )
            time.sleep(1)

    def _reload(self, load: Callable[[], Config]) -> None:
        self.reload = False
        self.notify(reloading())
        try:
            config = load()
        except ConfigError as cause:
            self._problem("configuration", f"{cause}; what was read before goes on")
            return
        moved = config.runtime_dir != self.config.runtime_dir
        self._problem("configuration", "runtime-dir changes with a restart only" if moved else "")
        self.config = replace(config, runtime_dir=self.config.runtime_dir)
        self.log.info("configuration read again")

    # What it waits for

    def _heed(self, seconds: float) -> None:
        """Wait so long for something to happen; take it in, and tell systemd that all is well."""
        for event in self.inbox.wait(seconds):
            self._take_in(event)
        self.notify("WATCHDOG=1")

    def _take_in(self, event: watch.Event) -> None:
        """Remember what has happened. What changed is only noted: one thing is done at a time."""
        match event:
            case watch.Changed(name, made):
                self.changed[name] = None
                if made:
                    self.remains.made(name)
            case watch.Died(pid):
                self.agenda.died(pid, time.monotonic())
            case watch.Closed(name):
                self.closed.add(name)
            case watch.DirectoryChanged():
                self.agenda.changed = True
            case watch.Overflowed():
                self.log.warning("the system lost count of the changes; the whole store is swept")
                self.tally.overflows += 1
                self.remains.lost_count()
                self.agenda.changed = True
            case watch.Answered(outcome):
                self._conclude(outcome)
            case watch.AnswerEnded(cause):
                self._answered(cause)
            case watch.Signalled(number):
                self._obey(number)

    def _obey(self, number: signal.Signals) -> None:
        """Remember what somebody wants."""
        self.reload |= number == signal.SIGHUP
        self.agenda.sweep_asked |= number == signal.SIGUSR1
        self.ended |= watch.Signalled(number) in _ENDS

    def _patience(self) -> float:
        """Seconds for which nothing is to be done, if nothing happens."""
        pings = watchdog_interval()
        patience = _LOOK_SECONDS if pings is None else min(_LOOK_SECONDS, pings)
        if self.asked is not None:
            return patience
        if self.changed or self.closed:
            return 0.0  # it came in while the helper was waited for
        next_at = max(self.agenda.next_at(self.config), self.rests_until)
        return min(patience, min(next_at, self.tell_at, self.remains_at) - time.monotonic())

    def _is_to_end(self) -> bool:
        """Whether it was told to end, though it may not have heeded that yet."""
        return self.ended or self.inbox.holds(_ENDS)

    def _go_on(self) -> None:
        """In the midst of long work: tell systemd that all is well, and end if told to."""
        self.notify("WATCHDOG=1")
        if self._is_to_end():
            raise Ended

    def _leave_if_ended(self) -> None:
        if self.ended:
            raise Ended

    # What it does

    def _work(self) -> bool:
        """Do what is due now; whether anything was."""
        now = time.monotonic()
        self.agenda.notice(self.changed, now, self.store.store_dir)
        self.agenda.release(self.closed, now, self.store.store_dir)
        if doubtful := self.remains.doubtful.keys() & self.changed.keys():
            self._look_at_remains(doubtful)
        self.changed.clear()
        self.closed.clear()
        if now >= self.agenda.sweep_at(self.config):
            self._sweep()
        elif now >= self.rests_until and (names := self.agenda.due(now)):
            self._look_again(names)
            done = time.monotonic()
            self.rests_until = done + min(_PACE_SECONDS, _PACE * (done - now))
        elif now >= self.agenda.finish.due:
            self._finish()
        elif now >= self.remains_at:
            self._look_at_remains(())
            return False
        else:
            return False
        return True

    def _sweep(self) -> None:
        self.agenda.changed = self.agenda.sweep_asked = False
        self._open()
        self._look_at_all()
        self.agenda.swept = time.monotonic()
        self.agenda.forget_locks()
        self._look_at_remains(self.remains.doubtful.keys())

    def _look_at_all(self) -> None:
        """Look at the whole store."""
        began = time.monotonic()
        try:
            swept = sweep(self.store)
        except StorewardenError as cause:
            self._problem("store", str(cause))
            return
        self._problem("store", "")
        self._problem("nix", swept.nix_silent)
        for note in () if self.tally.sweeps else swept.notes:
            self.log.warning("limited", text=note)
        self.tally.sweeps, self.tally.swept = self.tally.sweeps + 1, time.time()
        self.tally.registered_bytes = registered_bytes(self.store)
        self.agenda.sweep_seconds = time.monotonic() - began
        for name in self.found.keys() - {finding.base_name for finding in swept.findings}:
            del self.found[name]
        if len(requests_for(swept.findings, self.config.kinds)) <= self.config.max_removals:
            self._problem("fuse", "")
        self._deal_with(swept.findings)
        if swept.leftovers or self.tally.problems.keys() & {"helper", "leftovers"}:
            self._finish()

    def _look_again(self, names: Collection[str]) -> None:
        """Look at those suspects."""
        suspects, now = self.agenda.suspects, time.monotonic()
        try:
            with observe(self.store) as observed:
                seen = glance(observed, {name: suspects[name].covering for name in names})
                self._follow(observed, ())
                rest = set(names) - seen.alive.keys() - seen.gone - seen.others
                # Nobody is at work on it: soon it is registered, most of the time.
                early = {name for name in rest if suspects[name].new and self.store.least_age}
                dead = self._just_left(seen)
                rest = set() if dead else rest - early  # which can wait for the next round
                swept = look_among(observed, rest, tuple(PROOF)) if rest else None
        except StorewardenError as cause:
            self._problem("store", str(cause))
            for name in names:
                self._fail(name, (str(cause),))
            return
        self._problem("store", "")
        for name, pids in seen.alive.items():
            suspects[name] = suspects[name].alive(now, pids)
        for name in early:
            suspects[name] = suspects[name].young(now, self.store.least_age)
        for request in dead:
            suspects[request.base_name] = suspects[request.base_name].asked_for(now)
        findings = swept.findings if swept else ()
        for name in {*seen.gone, *seen.others, *rest} - {one.base_name for one in findings}:
            suspects.pop(name, None)
            if name not in seen.others:
                self.found.pop(name, None)
        self.inbox.mind({pid for suspect in suspects.values() for pid in suspect.pids})
        if dead:
            self._have_removed(dead, {name: one.ctime for name, one in seen.quiet.items()})
            self.agenda.touch(dead, time.monotonic())
        if swept:
            self._problem("nix", swept.nix_silent)
            self._deal_with(findings)

    def _look_at_remains(self, doubtful: Collection[str]) -> None:
        """Look at what builds may go on in, and whether those paths are what they were."""
        with suppress(StorewardenError), observe(self.store) as observed:
            self._follow(observed, doubtful)

    def _follow(self, observed: Observation, doubtful: Collection[str]) -> None:
        known = {*self.remains.doubtful}
        try:
            self.remains.look(observed, time.time())
            self.remains.check(observed, doubtful)
        except StoreUnreadableError:
            pass  # it is looked at again
        if known != self.remains.doubtful.keys():
            self._keep_doubtful()
        self.remains_at = NEVER.due if self.remains.is_idle else time.monotonic() + LOOK_SECONDS

    def _keep_doubtful(self) -> None:
        self.tell_at = 0.0
        try:
            self.remains.keep(self.config.runtime_dir)
        except OSError as cause:
            self._problem("status", f"cannot be written: {cause}")

    def _just_left(self, seen: Glance) -> tuple[RemoveRequest, ...]:
        """What build users own of what was let go just now: the helper is asked at once.

        It proves all of it anyhow, and to look here at what it will see as well takes longer than
        who retries at once gives it. What it keeps is looked at closely the next time.
        """
        if (
            self.config.mode is not Mode.REPAIR
            or EntryKind.OUTPUT not in self.config.kinds
            or self.config.min_age is not None
            or self.tally.problems
        ):
            return ()
        left = [
            entry
            for name, entry in seen.quiet.items()
            if self.agenda.suspects[name].let_go and self.agenda.suspects[name].covering
            # What is registered is the store owner's, from before it was.
            if entry.store_path and self.store.build_users.own(entry.uid, entry.gid)
        ]
        most = self.config.max_removals
        return tuple(request_for(one, EntryKind.OUTPUT) for one in left if len(left) <= most)

    def _deal_with(self, findings: Collection[Finding]) -> None:
        """Have removed what may go, and remember when to look again at the rest."""
        repairs, most = self.config.mode is Mode.REPAIR, self.config.max_removals
        requests = requests_for(findings, self.config.kinds) if repairs else ()
        if len(requests) > most:
            text = f"{len(requests)} entries would be removed, max-removals allows {most};"
            self._problem("fuse", f"{text} nothing is; see: storewarden scan --dry-run")
        blown = "fuse" in self.tally.problems
        if blown:
            requests = ()
        self.remains.follow(findings)
        if not self.remains.is_idle:
            self.remains_at = min(self.remains_at, time.monotonic() + LOOK_SECONDS)
        requested = {request.base_name for request in requests}
        now = time.monotonic()
        for finding in findings:
            name = finding.base_name
            if name not in self.found and finding.kind in PROOF and not blown:
                self.log.info(
                    "found",
                    path=self.store.store_dir.join(name),
                    kind=finding.kind.value,
                    verdict=finding.judgement.verdict.value,
                    reasons="; ".join(finding.judgement.reasons),
                )
            self.found[name] = finding.kind
            if name in requested:
                self.agenda.cover(finding, now)
            elif self.agenda.keep(finding, self.config.kinds, self.store.least_age, now):
                self._fail(name, finding.judgement.reasons)
        if requests:
            changed = {one.base_name: one.entry.ctime for one in findings if one.entry}
            self._have_removed(requests, changed)
            self.agenda.touch(requests, time.monotonic())

    # What it has the helper do, and what becomes of that

    def _finish(self) -> None:
        """Have removed what an earlier run left, and learn whether that can be done at all."""
        if self.config.mode is Mode.REPAIR:
            self._have_removed((), {})
        else:
            self._problem("helper", "")
            self.agenda.finish = NEVER

    def _have_removed(
        self, requests: tuple[RemoveRequest, ...], changed: Mapping[str, float]
    ) -> None:
        """Have these removed, until the answer has ended; with none, finish what was begun."""
        if self._is_to_end():
            return
        self.asked = _Asked(changed, {request.base_name for request in requests})
        self.remains.asked(self.asked.waiting)
        asking = threading.Thread(target=self._ask, args=(requests,), daemon=True)
        asking.start()
        while self.asked is not None:
            self._heed(self._patience())
        asking.join()

    def _ask(self, requests: tuple[RemoveRequest, ...]) -> None:
        """In a thread of its own: ask for these, and leave each answer in the inbox."""
        ended_by: BaseException | None = None
        try:
            for outcome in self.remove(requests):
                self.inbox.post(watch.Answered(outcome))
        except BaseException as cause:  # noqa: BLE001 - the loop raises what it does not expect
            ended_by = cause
        self.inbox.post(watch.AnswerEnded(ended_by))

    def _conclude(self, outcome: Outcome) -> None:
        """Remember what became of one entry."""
        assert self.asked is not None  # noqa: S101 - only who is asked answers
        self.remains.heard(outcome)
        if outcome.status is Status.TAKEN:
            self._log_outcome("taken out of the store", outcome)
            return
        name, now = outcome.base_name, time.monotonic()
        account = f"{name}: {'; '.join(outcome.reasons)}"
        self.asked.waiting.discard(name)
        match outcome.status:
            case Status.REMOVED:
                kind = self.found.pop(name, EntryKind.OUTPUT)
                self._count(outcome, kind, self.asked.changed.get(name))
                self.agenda.suspects.pop(name, None)
                self.agenda.wake_locks(now)
                self._log_outcome("removed", outcome, kind=kind.value, files=outcome.files)
            case Status.VANISHED:
                self._forget(name)
            case Status.KEPT if outcome.unproved:
                self.tally.refused += 1
                self._fail(name, outcome.reasons)
            case Status.KEPT:
                self.tally.refused += 1
                suspect = self.agenda.suspect(name, now)
                self.agenda.suspects[name] = suspect.refused(now)
                if not suspect.waited:
                    self._log_outcome("kept", outcome)
            case Status.PARTIAL:
                self.tally.failed += 1
                self._forget(name)
                self.asked.partial.append(account)
            case Status.FAILED if any(CANNOT_BE_PUT_BACK in one for one in outcome.reasons):
                # No suspect: nothing of it lies in the store to be looked at.
                self.tally.failed += 1
                self.asked.away.append(account)
            case Status.FAILED:
                self.tally.failed += 1
                self._fail(name, outcome.reasons)

    def _count(self, outcome: Outcome, kind: EntryKind, changed: float | None) -> None:
        """Count a removal, of an entry that changed last at that Unix time."""
        tally, now = self.tally, time.time()
        tally.removed[kind] = tally.removed.get(kind, 0) + 1
        tally.removed_bytes += outcome.bytes
        gone = Removed(outcome.base_name, kind.value, now, outcome.files, outcome.bytes)
        tally.recent = (*tally.recent, gone)[-_MOST_RECENT:]
        if changed is not None:
            waited, counts = max(0.0, now - changed), list(tally.waited)
            counts[bisect_left(WAITS, waited)] += 1
            tally.waited = tuple(counts)
            tally.waited_seconds += waited

    def _answered(self, cause: BaseException | None) -> None:
        """The helper says no more; `cause` is why, if it did not answer to its end."""
        assert self.asked is not None  # noqa: S101 - as above
        asked, self.asked = self.asked, None
        again = self.agenda.finish.refused(time.monotonic())
        match cause:
            case None:
                self._problem("helper", "")
                # What may be a live build's is tried to be put back again soon.
                self.agenda.finish = again if asked.away else NEVER
                # Every run looks after what earlier ones left, and so tells of all of it.
                self._problem("leftovers", "".join(asked.partial[:1]))
                self._problem("put-back", "".join(asked.away[:1]))
            case StorewardenError():
                self._problem("helper", str(cause))
                self.agenda.finish = again
                for name in asked.waiting:
                    self._fail(name, (str(cause),))
            case Ended():
                self.ended = True
            case _:
                raise cause

    def _log_outcome(self, event: str, outcome: Outcome, **more: object) -> None:
        reasons = {"reasons": "; ".join(outcome.reasons)} if outcome.reasons else {}
        path = self.store.store_dir.join(outcome.base_name)
        self.log.info(event, path=path, **reasons, **more)

    def _forget(self, name: str) -> None:
        self.found.pop(name, None)
        self.agenda.suspects.pop(name, None)

    def _fail(self, name: str, reasons: tuple[str, ...]) -> None:
        """Remember why an entry that should go could not; logged when the reasons change."""
        now = time.monotonic()
        before = self.agenda.suspect(name, now)
        if before.reasons != reasons:
            path = self.store.store_dir.join(name)
            self.log.warning("not removed", path=path, reasons="; ".join(reasons))
        kind = self.found.get(name, EntryKind.OUTPUT).value
        self.agenda.suspects[name] = before.failed(now, time.time(), kind, reasons)

    # What it tells of itself

    def _problem(self, where: str, text: str) -> None:
        """Remember what is wrong there now, "" if nothing is; logged when that changes."""
        if text == self.tally.problems.get(where, ""):
            return
        if text:
            self.tally.problems[where] = text
            self.log.error("problem", where=where, text=text)
        else:
            del self.tally.problems[where]
            self.log.info("problem over", where=where)

    @contextmanager
    def _problem_if_any(self, where: str) -> Iterator[None]:
        try:
            yield
        except StorewardenError as cause:
            self._problem(where, str(cause))
        else:
            self._problem(where, "")

    def status(self) -> ServiceStatus:
        """The service at this moment."""
        stuck = [
            Stuck(one.name, one.kind, one.since, one.reasons)
            for one in self.agenda.suspects.values()
            if one.reasons
        ]
        stuck.sort(key=lambda one: (one.since, one.name))
        return replace(
            self.tally,
            updated=time.time(),
            mode=self.config.mode.value,
            store_dir=self.config.store_dir.path,
            sweep_seconds=self.agenda.sweep_seconds,
            found=dict(sorted(Counter(kind.value for kind in self.found.values()).items())),
            watched=len(self.agenda.suspects),
            stuck=tuple(stuck[:_MOST_LISTED]),
            stuck_count=len(stuck),
            doubtful=tuple(self.remains.doubtful.values())[-_MOST_LISTED:],
            doubtful_count=len(self.remains.doubtful),
            removed=dict(self.tally.removed),
            problems=dict(self.tally.problems),
        )

    def _tell(self) -> None:
        """Write down how things stand. What cannot be written is one of those things."""
        self.latest = latest = self.status()
        try:
            write_status(self.config.runtime_dir, latest)
            self._problem("status", "")
        except OSError as cause:
            self._problem("status", f"cannot be written: {cause}")
        if (path := self.config.metrics_textfile) is not None:
            from storewarden.daemon.metrics import write_textfile  # noqa: PLC0415 - two MiB, for who wants them

            with self._problem_if_any("metrics-textfile"):
                write_textfile(path, latest)
        self.notify(f"STATUS={latest.line()}")
        self.tell_at = time.monotonic() + _BEAT_SECONDS

    def _answer_prometheus(self, stack: ExitStack) -> None:
        """Answer Prometheus until the stack is closed, if that is asked for and can be had."""
        if (address := self.config.metrics_listen) is not None:
            from storewarden.daemon.metrics import answering  # noqa: PLC0415 - as above

            with self._problem_if_any("metrics-listen"):
                stack.enter_context(answering(address, lambda: self.latest or self.status()))


def _comes(socket: str) -> bool:
    """Whether the helper's socket is there; soon, where its directory is: launchd starts both."""
    until = time.monotonic() + _SOCKET_SECONDS
    while not (found := os.path.exists(socket)):
        if time.monotonic() > until or not os.path.isdir(os.path.dirname(socket)):
            break
        time.sleep(_SOCKET_PAUSE)
    return found
