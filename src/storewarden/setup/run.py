# SPDX-License-Identifier: MIT
"""`storewarden setup`: plan, tell, do, verify; and the way back."""

import fcntl
import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace

from storewarden import host
from storewarden.client import HelperUnavailableError, remove_through
from storewarden.config import DEFAULT_CONFIG, KEYS, MANIFEST, Config, configured
from storewarden.daemon.status import SILENCE, is_held, read_status
from storewarden.errors import StorewardenError
from storewarden.prevention import HOOK
from storewarden.processes import nix_processes, oldest_daemon
from storewarden.protocol import RemoveRequest
from storewarden.readable import (
    DECLARE,
    PLAIN,
    SET_UP,
    SUDO_PATH,
    TAKE_BACK,
    WATCH,
    Mark,
    Style,
    count_text,
    first_at,
    this_caller,
)
from storewarden.setup import darwin, linux, prevent
from storewarden.setup.code import (
    CODE,
    FOR_PEOPLE,
    GC_ROOTS,
    IMPORTS,
    Program,
    execute,
    program,
    shipped,
)
from storewarden.setup.files import (
    File,
    Item,
    Manifest,
    SetupError,
    State,
    make_directories,
    missing_directories,
    read_manifest,
    settled,
    state_at,
    take_away,
    write_manifest,
)
from storewarden.setup.plan import (
    Keep,
    RunCommand,
    SetupStep,
    TakeAway,
    TakeAwayDirectory,
    as_json,
    is_declared,
    lines,
    manifest_after,
    manifest_before,
    removals,
    stale,
    take,
    writes,
)
from storewarden.store.entries import EntryKind, FileId

LOCAL = "/usr/local"
LAUNCHER = f"{LOCAL}/bin/storewarden"
LOCK = darwin.LOCK if sys.platform == "darwin" else linux.LOCK
SYSTEMD = "/run/systemd/system"
_HEAD = """\
# The settings of storewarden: storewarden-config(5). A line that is commented out shows the
# default, or an example where there is none. After a change:
"""
_RESERVE = f"{Config().audit_log}.reserve"
"""What the helper keeps for a full disk; of use to nobody without it."""
_BUSY = (1, 8, 10)
"""Of userdel: somebody else changes the accounts, or a process of the user's is just ending."""
_LINUX_AT_RUN_TIME = ("/run/storewarden/watch", "/run/storewarden/nix", "/run/storewarden")
ASK = "import sys; from storewarden.setup.run import answer_of; print(answer_of(sys.argv[1]))"
"""What the watcher's user runs, with the helper's socket."""
ASK_WATCHER = "import sys; from storewarden.setup.run import word_of; print(word_of(sys.argv[1]))"
"""What it runs with the watcher's directory."""
Words = list[list[str]]
_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class Order:
    """How setup was asked for."""

    top: str
    """A staging directory, or empty for this machine."""
    dry_run: bool
    as_json: bool
    say: Callable[[str], None]
    style: Style = PLAIN
    at: Callable[[str], None] = lambda _: None
    """Told of each step before it is taken, in a few words."""
    prevent: bool = False
    """Whether Nix's hook is asked for; to be taken back alone, where it is taken back."""


@dataclass(frozen=True, slots=True)
class Target:
    """What should be there."""

    program: Program
    others: tuple[Item, ...]
    """All but the program's own files, which come first."""
    keeps: tuple[Keep, ...]
    start: Callable[[bool], list[RunCommand]]
    """The commands for the end, told whether anything has changed."""

    @property
    def items(self) -> tuple[Item, ...]:
        """All of it."""
        return (*self.program.items, *self.others)

    @property
    def paths(self) -> frozenset[str]:
        """Where it is, and what is kept in the place of some of it."""
        return frozenset(one.path for one in (*self.items, *self.keeps))


def install(order: Order) -> None:
    """Set the service up; `SetupError` where that cannot be done.

    `HelperUnavailableError` where it was done, and the watcher's user reaches no helper that works.
    """
    _refuse_machine(order.top)
    with at_work(order.top, dry_run=order.dry_run):
        before = read_manifest(order.top) or Manifest()
        wanted = order.prevent or HOOK in before.files
        target = target_for(before, order.top, hook=prevent.items if wanted else _no_hook)
        steps = _steps(target, before, order.top)
        last = prevent.steps_on(target.program, steps, order.top) if wanted else []
        _tell(order, [*steps, *last], target.program.why)
        if order.dry_run:
            return
        if not before.ended or any(not isinstance(step, Keep) for step in [*steps, *last]):
            user = linux.USER if RunCommand(["systemd-sysusers", linux.SYSUSERS]) in steps else ""
            begun = manifest_before(before, steps, order.top, user)
            write_manifest(begun, order.top)
            _do(order, [*steps, *last])
            write_manifest(manifest_after(begun, target.items, steps, order.top), order.top)
        else:
            _do(order, steps)
            _say(order, "nothing to change: everything is as it should be")
        if not order.top:
            check_helper(target.program.python)
            _say(
                order,
                order.style.mark(Mark.WELL, "the watcher runs, and its user reaches the helper"),
            )


def uninstall(order: Order) -> None:
    """Take away what setup wrote and made, but for what was changed since, and the audit log."""
    with at_work(order.top, dry_run=order.dry_run):
        before = read_manifest(order.top)
        if before is None:
            with suppress(OSError):  # what a run leaves that is cut off at its very end
                os.rmdir(f"{order.top}{os.path.dirname(MANIFEST)}")
            _say(order, f"nothing to remove: there is no {order.top}{MANIFEST}")
            return
        off = prevent.steps_off(before, order.top)
        steps = [] if order.prevent else _steps_back(before, order.top)
        _tell(order, [*off, *steps, *prevent.steps_back(before, frozenset(), order.top)], "")
        if order.dry_run:
            return
        write_manifest(manifest_before(before, [], order.top, ""), order.top)
        readers = nix_processes()
        _do(order, off)
        readers = prevent.also_forked(readers, nix_processes(), oldest_daemon())
        _do(order, steps)
        # The services ask Nix as well; they have ended by now.
        hook = prevent.steps_back(before, readers, order.top)
        _do(order, hook)
        left = _left(before, hook, order)
        if left.files:
            write_manifest(left, order.top)
            return
        take_away(MANIFEST, order.top)
        for place in sorted(before.directories, reverse=True):
            if _above_manifest(place, order.top):
                with suppress(OSError):
                    os.rmdir(f"{order.top}{place}")
        if not order.top:
            os.unlink(LOCK)
            if sys.platform == "darwin":
                with suppress(OSError):
                    os.rmdir(darwin.STATE)
        _say(order, "removed; the audit log stays in /var/log/storewarden")


def _left(before: Manifest, hook: Sequence[SetupStep], order: Order) -> Manifest:
    """What is still ours after it was taken back: the hook, or all but what is for prevention."""
    kept = {step.path for step in hook if isinstance(step, Keep)}
    if order.prevent:
        kept |= before.files.keys() - set(prevent.PLACES)
    return replace(before, files={path: before.files[path] for path in kept}, ended=True)


def _no_hook(_code: Program, _top: str) -> tuple[File, ...]:
    return ()


def _steps(target: Target, before: Manifest, top: str) -> list[SetupStep]:
    """In this order a run that is cut off leaves nothing that runs half of it."""
    code = writes(target.program.items, before, top)
    others = writes(target.others, before, top)
    old = stale(target.paths, before, top)
    if top:
        return [*code, *others, *old, *target.keeps]
    # What runs until now keeps its code to its end: a collector may come at any moment.
    old_code = [step for step in old if step.path.startswith((CODE, GC_ROOTS))]
    old = [step for step in old if step not in old_code]
    gone = any(isinstance(step, TakeAway) for step in old)
    changed = bool(code or others or gone) or not before.ended
    prove = checks(target.program) if code or not before.ended else []
    start = target.start(changed)
    files = [*code, *map(RunCommand, prove), *others, *old]
    return [*files, *start, *old_code, *target.keeps]


def _steps_back(before: Manifest, top: str) -> list[SetupStep]:
    # What is set up first goes last: the command that can do this stays until near the end.
    files = removals([one for one in before.files if one not in prevent.PLACES], before, top)
    places: list[SetupStep] = [
        TakeAwayDirectory(place)
        for place in sorted(before.directories, reverse=True)
        if not _above_manifest(place, top)
    ]
    if top:
        return [*files, *places]
    if sys.platform == "darwin":
        others = map(TakeAway, (_RESERVE, host.SOCKET, darwin.helper_log()))
        return [*darwin.stop_words(), *files, *others, *places]
    stop, after = [], list[RunCommand]()
    theirs = {step.path for step in files if isinstance(step, Keep) and is_declared(step.path)}
    if os.path.exists(SYSTEMD):
        stop, after = linux.stop_words(theirs), [RunCommand(["systemctl", "daemon-reload"])]
    if before.user and linux.has_user() and f"{linux.UNITS}/{linux.WATCHER}" not in theirs:
        after.append(RunCommand(["userdel", before.user], again=_BUSY, tries=20))
    at_run_time = [TakeAwayDirectory(place) for place in _LINUX_AT_RUN_TIME]
    files = [*files, TakeAway(_RESERVE)]
    return [*map(RunCommand, stop), *files, *after, *places, *at_run_time]


def _above_manifest(directory: str, top: str) -> bool:
    return settled(MANIFEST, top).startswith(f"{directory}/")


def _tell(order: Order, steps: Sequence[SetupStep], why: str) -> None:
    if order.as_json:
        order.say(as_json(steps, why, dry_run=order.dry_run))
    elif order.dry_run:
        for line in lines(steps, order.style):
            order.say(line)
        order.say(f"{count_text(len(steps), 'step')}; with --dry-run none of them is taken")


def _do(order: Order, steps: Sequence[SetupStep]) -> None:
    for line in lines(_counted(order, steps), order.style):
        _say(order, line)


def _counted(order: Order, steps: Sequence[SetupStep]) -> Iterator[SetupStep]:
    for number, step in enumerate(take(steps, order.top), 1):
        order.at(f"step {number} of {len(steps)}")
        yield step


def _say(order: Order, line: str) -> None:
    if not order.as_json:
        order.say(line)


def target_for(
    before: Manifest, top: str, hook: Callable[[Program, str], tuple[File, ...]]
) -> Target:
    """For the machine this runs on, or, below `top`, for any machine of this system."""
    code = program()
    for_people, keeps = _for_people(code, before, top)
    if sys.platform == "darwin":
        owner = darwin.person(os.environ)
        settings = darwin.settings(owner)
        files = darwin.jobs(code.python, owner)
        start: Callable[[bool], list[RunCommand]] = lambda changed: darwin.start_words(  # noqa: E731
            changed=changed
        )
        keeps += () if top else darwin.shared_directories()
        after = darwin.AFTER_A_CHANGE
    else:
        settings = dict[str, str]()
        machine = linux.Machine() if top else linux.this_machine(DEFAULT_CONFIG)
        files = linux.units(code.python, machine)
        start = lambda changed: [*map(RunCommand, linux.start_words(changed=changed))]  # noqa: E731
        after = linux.AFTER_A_CHANGE
    first = File(DEFAULT_CONFIG, first_config(settings, after).encode(), once=True)
    return Target(code, (*for_people, first, *files, *hook(code, top)), keeps, start)


def checks(code: Program) -> Words:
    """Commands that compile a new copy of the code once, and prove it to be whole."""
    if code.copied is None:
        return []
    return [
        [code.python, "-I", "-m", "compileall", "-q", f"{code.copied}/lib"],
        [code.python, "-I", "-B", "-c", IMPORTS],
    ]


def _for_people(
    code: Program, before: Manifest, top: str
) -> tuple[tuple[File, ...], tuple[Keep, ...]]:
    """The command, manual and completions, where there are none and they can be put there."""
    if code.copied is None and _has_command():
        return (), ()
    text = (
        f"#!{code.python} -I\nimport sys\n\nfrom storewarden.cli import main\n\nsys.exit(main())\n"
    )
    files, keeps = [], []
    for file in (
        File(LAUNCHER, text.encode(), 0o755),
        *(File(f"{LOCAL}/{place}", shipped(name)) for name, place in FOR_PEOPLE.items()),
    ):
        try:
            missing_directories(os.path.dirname(file.path), top or "/")
            if state_at(file, top, before.files.get(file.path, ())) is not State.OTHERS:
                files.append(file)
                continue
            why = "not written by setup, or changed since"
        except SetupError as cause:
            why = str(cause)
        instead = f"; what is set up: {code.python} -I -m storewarden"
        keeps.append(Keep(file.path, f"{why}{instead if file.path == LAUNCHER else ''}"))
    return tuple(files), tuple(keeps)


def _has_command() -> bool:
    """Whether sudo finds this very program without our help: a package of the system's."""
    return this_caller().is_at(first_at("storewarden", SUDO_PATH))


def first_config(settings: Mapping[str, str], after_a_change: str) -> str:
    """The file to begin with: those settings, and every other key commented out."""
    text = _HEAD + after_a_change
    for key, row in KEYS.items():
        mark, value = ("", settings[key]) if key in settings else ("#", row.metadata["shown"])
        text += f"\n# {row.metadata['sentence']}\n{mark}{key} = {json.dumps(value)}\n"
    return text


def answer_of(socket_path: str) -> str:
    """What a helper answers who is asked to remove what is not there, or why it does not answer.

    Whoever answers that has read all it needs.
    """
    request = RemoveRequest(f"{'0' * 32}-storewarden-setup.lock", EntryKind.LOCK, FileId(1, 1))
    try:
        return " ".join(outcome.status for outcome in remove_through(socket_path)([request]))
    except StorewardenError as cause:
        return str(cause)


def word_of(runtime_dir: str) -> str:
    """`fresh` if a service holds that directory and has lately told of itself, or what is amiss."""
    try:
        if not is_held(runtime_dir):
            return "it does not run"
        status = read_status(runtime_dir)
    except StorewardenError as cause:
        return str(cause)
    if status is None or time.time() - status.updated > SILENCE:
        return "it has said nothing yet"
    return "fresh"


def check_helper(python: str) -> None:
    """Return if the watcher runs, and its user reaches a helper that works, asked as it asks.

    Else `HelperUnavailableError`, or `SetupError` if the watcher or the units are down.
    """
    config = configured(None)
    if sys.platform == "darwin":
        owner, until = darwin.person(os.environ), time.monotonic() + darwin.PATIENCE
        answer = _answer(python, owner.name, [ASK, config.socket], "vanished", until)
        word = _answer(python, owner.name, [ASK_WATCHER, config.runtime_dir], "fresh", until)
        if answer == "vanished" and word != "fresh":
            raise SetupError(f"set up, but not at work: the watcher: {word}; see: {owner.log}")
    else:
        if down := linux.inactive():
            raise SetupError(
                f"set up, but not at work: {', '.join(down)}; see: journalctl -u {down[0]}"
            )
        answer = _answer(python, linux.USER, [ASK, config.socket], "vanished", 0.0)
    if answer != "vanished":
        raise HelperUnavailableError(f"set up, but the helper does not work yet: {answer}")


def _answer(python: str, name: str, words: Sequence[str], hoped: str, until: float) -> str:
    """The last line of what that user is told; asked until it is as hoped, or the time is over."""
    while True:
        try:
            done = execute([python, "-I", "-B", "-c", *words], user=pwd.getpwnam(name))
        except (OSError, KeyError, subprocess.SubprocessError) as cause:
            raise HelperUnavailableError(
                f"set up, but the helper does not answer: {cause}"
            ) from cause
        answer = (done.stdout.strip() or done.stderr.strip() or "it said nothing").splitlines()[-1]
        if answer == hoped or time.monotonic() > until:
            return answer
        time.sleep(_PAUSE)


@contextmanager
def at_work(top: str, *, dry_run: bool) -> Iterator[None]:
    """While no other setup changes this machine; `SetupError` where none is to be done here."""
    _refuse(top, dry_run=dry_run)
    try:
        with nullcontext() if top or dry_run else _alone():
            yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the next setup completes it") from None


@contextmanager
def _alone() -> Iterator[None]:
    make_directories(os.path.dirname(LOCK))
    fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise SetupError(f"another setup is at work (it holds {LOCK})") from None
    try:
        yield
    finally:
        os.close(fd)


def _refuse(top: str, *, dry_run: bool) -> None:
    if top:
        if top == "/":
            raise SetupError("--root is a staging directory; for this machine, leave it out")
        if not os.path.isdir(top):
            raise SetupError(f"{top} is not a directory; make it first")
    elif os.geteuid() != 0 and not dry_run:
        raise SetupError(f"only root can set it up or take it back: {SET_UP} (or look: --dry-run)")


def _refuse_machine(top: str) -> None:
    """`SetupError` where the service is brought about in another way; it can be taken back."""
    if top:
        return
    if system := host.declared_by():
        left = f"; what setup wrote here before: {TAKE_BACK}" if os.path.exists(MANIFEST) else ""
        raise SetupError(
            f"{system} owns the configuration of this machine; there the module does this:"
            f" {DECLARE}{left}"
        )
    if sys.platform == "linux" and not os.path.isdir(SYSTEMD):
        raise SetupError(
            "no systemd runs here, so there is nothing to set up; in a container, start it"
            f" yourself, as root: {WATCH}"
        )
