# SPDX-License-Identifier: MIT
"""The service: when it works, and what it tells of itself.

One thread does all the work, and it alone tells systemd that it is well. A whole sweep at the
start, on a timer, and whenever the system lost count; between them only what changes is looked at.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from structlog.typing import FilteringBoundLogger

from storewarden import __version__
from storewarden.config import Config, ConfigError
from storewarden.daemon.inbox import Inbox, inbox
from storewarden.daemon.notify import notifying, reloading, watchdog_interval
from storewarden.daemon.removals import finish_begun
from storewarden.daemon.rounds import look_again, sweep_all
from storewarden.daemon.serving import Ended, open_work, refresh
from storewarden.daemon.status import held
from storewarden.daemon.suspects import due, next_due
from storewarden.daemon.telling import Telling, answering, tell
from storewarden.daemon.wakes import INOTIFY, POLLING, Watching, how_to_watch, watching
from storewarden.daemon.work import Work, notice, problem, release

_BEAT_SECONDS = 60.0
"""The status is written at least so often."""
_LOOK_SECONDS = 5.0
"""Nothing tells that the directory itself is another: mounted over, or away. It is looked at."""
_PACE_SECONDS = 0.1
"""Between two rounds: in a big build many entries are looked at together."""
_SHARE = 20
"""After changes that nobody can name, whole sweeps take at most one part in so many of the time."""
_ENDS = frozenset({signal.SIGTERM, signal.SIGINT})
_SIGNALS = (*_ENDS, signal.SIGHUP, signal.SIGUSR1)


@dataclass(slots=True)
class _Service:
    load: Callable[[], Config]
    news: Inbox
    telling: Telling
    log: FilteringBoundLogger
    watched: Watching | None = None
    swept: float = float("-inf")
    """When the last whole sweep ended, by the monotonic clock."""
    changed: bool = False
    """Something changed, and only a whole sweep can tell what."""
    lost: bool = False
    """The system lost count of the changes."""
    signals: set[signal.Signals] = field(default_factory=set)
    """What came and waits to be heeded."""
    names: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)


def watch(load: Callable[[], Config], log: FilteringBoundLogger) -> None:
    """Watch and repair until told to end. `load` reads the configuration, again at each reload.

    A `StorewardenError` where it cannot begin: the configuration is wrong, another service
    runs, or the helper was never set up.
    """
    config = load()
    with notifying() as notify, inbox(*_SIGNALS) as news, held(config.runtime_dir):
        service = _Service(load, news, Telling(notify), log)
        work = open_work(config, log, lambda: _pulse(service), lambda: _ended(service))
        with suppress(Ended):
            while not _ended(service):
                with _watched(service, work):
                    _serve(service, work)
                if signal.SIGHUP in service.signals:
                    _reload(service, work)
        notify("STOPPING=1\nSTATUS=ended")
        log.info("ended", removed=work.removed.total())


def _pulse(service: _Service) -> None:
    """Tell systemd that the work goes on, and hear what has come in meanwhile."""
    service.telling.notify("WATCHDOG=1")
    news = service.news.take()
    service.signals |= news.signals
    service.names |= news.names
    service.closed |= news.closed
    service.changed |= news.changed
    service.lost |= news.lost


def _ended(service: _Service) -> bool:
    return bool(service.signals & _ENDS)


@contextmanager
def _watched(service: _Service, work: Work) -> Iterator[None]:
    """Watch the store directory while inside, in the way that is to be trusted there."""
    config = work.config
    how = how_to_watch(config.store_dir.path)
    try:
        with watching(config.store_dir.path, how, config.poll_interval, service.news) as found:
            problem(work, "wakes", "")
            service.watched = found
            yield
    except OSError as cause:
        if service.watched is not None:
            raise
        # No inotify instance left, say (fs.inotify.max_user_instances).
        problem(work, "wakes", f"{INOTIFY} is not to be had: {cause}; polling instead")
        directory, interval = config.store_dir.path, config.poll_interval
        with watching(directory, POLLING, interval, service.news) as found:
            service.watched = found
            yield
    finally:
        service.watched = None


def _serve(service: _Service, work: Work) -> None:
    """Work until something outside has to change: told to end or reload, or the watch is over."""
    assert service.watched is not None  # noqa: S101 - _watched has set it
    _sweep(service, work)
    finish_begun(work)
    told = _tell(service, work)
    service.log.info(
        "watching",
        version=__version__,
        store=work.config.store_dir.path,
        mode=work.config.mode.value,
        wakes=service.watched.how,
    )
    service.telling.notify("READY=1")
    with answering(service.telling, work):
        _work_on(service, work, told)


def _work_on(service: _Service, work: Work, told: float) -> None:
    assert service.watched is not None  # noqa: S101 - _watched has set it
    while service.watched.lasts() and not service.signals & {*_ENDS, signal.SIGHUP}:
        if _work(service, work) or time.monotonic() >= told + _BEAT_SECONDS:
            told = _tell(service, work)
        service.news.wait(_patience(service, work, told))
        _pulse(service)
    if not service.watched.lasts():
        service.log.warning("the watch ended by itself (is the store mounted anew?); it is renewed")
        time.sleep(1)


def _work(service: _Service, work: Work) -> bool:
    """Do what is due now; whether anything was."""
    notice(work, service.names)
    release(work, service.closed)
    service.names.clear()
    service.closed.clear()
    if service.lost:
        service.log.warning("the system lost count of the changes; the whole store is swept")
        work.overflows += 1
        service.lost, service.changed = False, True
    now = time.monotonic()
    if signal.SIGUSR1 in service.signals or now >= _sweep_at(service, work):
        service.signals.discard(signal.SIGUSR1)
        _sweep(service, work)
        return True
    names = due(work.suspects, now)
    if names:
        look_again(work, names)
        time.sleep(_PACE_SECONDS)
    elif now >= work.helper.due:
        finish_begun(work)
        return True
    return bool(names)


def _sweep(service: _Service, work: Work) -> None:
    service.changed = False
    refresh(work)
    sweep_all(work)
    service.swept = time.monotonic()


def _sweep_at(service: _Service, work: Work) -> float:
    if service.changed:
        return service.swept + max(work.config.poll_interval, work.sweep_seconds * _SHARE)
    return service.swept + work.config.sweep_interval


def _patience(service: _Service, work: Work, told: float) -> float:
    """Seconds for which nothing is to be done, if nothing comes in."""
    if service.names or service.closed or service.lost:
        return 0.0  # it came in during long work, and was taken from the inbox then
    ends = [
        next_due(work.suspects),
        work.helper.due,
        _sweep_at(service, work),
        told + _BEAT_SECONDS,
    ]
    patience = min(min(ends) - time.monotonic(), _LOOK_SECONDS)
    pings = watchdog_interval()
    return patience if pings is None else min(patience, pings)


def _tell(service: _Service, work: Work) -> float:
    """Let everybody know how things stand; when that was."""
    assert service.watched is not None  # noqa: S101 - _watched has set it
    tell(service.telling, work, service.watched.how)
    return time.monotonic()


def _reload(service: _Service, work: Work) -> None:
    service.signals.discard(signal.SIGHUP)
    service.telling.notify(reloading())
    try:
        config = service.load()
    except ConfigError as cause:
        problem(work, "configuration", f"{cause}; what was read before goes on")
        return
    moved = config.runtime_dir != work.config.runtime_dir
    problem(work, "configuration", "runtime-dir changes with a restart only" if moved else "")
    work.config = replace(config, runtime_dir=work.config.runtime_dir)
    service.log.info("configuration read again")
