# SPDX-License-Identifier: MIT
"""`python -I -S before_build.py CONFIG [DERIVATION [CHROOT]]`: what Nix's pre-build-hook does.

A worker of Nix runs it, as root, while it holds the locks of what it is about to build, after it
has ended all processes of its build user and before the builder starts (`getPathsInSandbox`, 2.8.1
to 2.36; `DarwinDerivationBuilder::prepareSandbox` from 2.30 on). What an interrupted build left in
the way of this one is removed by the engine, which takes what its parent's parent holds for held.

The build waits for it. So nothing is imported before something lies there, and it ends within a
second whatever hangs. It fails no build: its shell (prevention.py) ends with 0 all the same.
"""

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from storewarden.store.floating import outputs_in, scratch_name

_MOST = 1 << 20
_SECONDS = 0.8
_NIX_SECONDS = 0.5


def main(config: str, derivation: str = "", *_chroot: str) -> int:
    """Look, and remove what is in the way; 0, or 1 where that could not be done or told.

    Without a derivation it only shows that it begins.
    """
    if not derivation:
        return 0
    store_dir, _, name = derivation.rpartition("/")
    try:
        with open(derivation, encoding="utf-8", errors="surrogateescape") as file:
            outputs = outputs_in(file.read(_MOST))
        floating = [output for output, path in outputs if not path]
        there = [one for one in floating if os.path.lexists(_scratch(store_dir, name, one))]
    except (OSError, ValueError) as cause:
        return _say(f"{name}: what a build of it left cannot be looked for: {cause}")
    return _remove(config, store_dir, name, there) if there else 0


def _scratch(store_dir: str, name: str, output: str) -> str:
    return f"{store_dir}/{scratch_name(name, output, store_dir)}"


def _remove(place: str, store_dir: str, name: str, outputs: list[str]) -> int:
    import signal  # noqa: PLC0415 - most builds find nothing in their way
    import time  # noqa: PLC0415 - likewise

    # Whatever hangs then, in Python or out of it: the kernel ends it, as may happen at any time.
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)

    from storewarden.config import Mode, load_config_if_there  # noqa: PLC0415 - likewise
    from storewarden.errors import StorewardenError  # noqa: PLC0415
    from storewarden.helper.__main__ import checked_store, prepare  # noqa: PLC0415
    from storewarden.helper.engine import remove_before_build  # noqa: PLC0415
    from storewarden.helper.hold import waiting_worker  # noqa: PLC0415
    from storewarden.helper.surroundings import check_place, check_surroundings  # noqa: PLC0415
    from storewarden.protocol import Status  # noqa: PLC0415
    from storewarden.store.entries import EntryKind  # noqa: PLC0415
    from storewarden.store.paths import StorePath  # noqa: PLC0415

    try:
        check_surroundings()
        check_place(place, "which says what is done as root")
        config = load_config_if_there(place)
        if config.mode is Mode.REPORT or EntryKind.OUTPUT not in config.kinds:
            return _say(
                f"{name}: an interrupted build of it is in the way; {place} says to keep it"
            )
        ages = (time.time() - os.lstat(_scratch(store_dir, name, one)).st_ctime for one in outputs)
        if (asked := config.min_age) is not None and any(age < asked for age in ages):
            return _say(f"{name}: an interrupted build of it is in the way, younger than min-age")
        prepare(config, None, {})
        store, worker = checked_store({}, config, None, _NIX_SECONDS), waiting_worker()
        removing = remove_before_build(
            store, StorePath(name), outputs, worker, audit_log=config.audit_log
        )
        for outcome in removing:
            if outcome.status is not Status.TAKEN:
                why = "; ".join(outcome.reasons)
                _say(f"{outcome.base_name}: {outcome.status}{why and f' ({why})'}")
    except (StorewardenError, OSError) as cause:
        return _say(f"{name}: what lies in its way stays: {cause}")
    return 0


def _say(text: str) -> int:
    """One line for the log of nix-daemon."""
    print(f"storewarden: {text}", file=sys.stderr, flush=True)  # noqa: T201 - its only log
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
