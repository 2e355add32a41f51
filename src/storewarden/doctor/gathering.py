# SPDX-License-Identifier: MIT
"""All facts gathered: nothing is changed, no privilege is needed, each question has an end."""

import os
import time
from collections.abc import Callable

from storewarden.config import Config
from storewarden.doctor.accounts import look_at_accounts
from storewarden.doctor.asking import ask_nix
from storewarden.doctor.attendance import (
    look_at_audit,
    look_at_daemon,
    look_at_helper,
    look_at_service,
)
from storewarden.doctor.bounded import within
from storewarden.doctor.facts import Facts, Settings, Unknown
from storewarden.doctor.kernel import look_at_kernel
from storewarden.doctor.places import (
    exists,
    listable,
    look_at_database,
    look_at_mount,
    look_at_rooms,
)
from storewarden.store import nix as validity
from storewarden.store.fact import Known

SHELTER = "/homeless-shelter"
"""What Nix sets HOME to in every build (libstore, 2.3 to 2.35)."""


def gather(config: Config, config_problem: str, nix: validity.Nix) -> Facts:
    """What can be known of this machine now, by this user.

    `config_problem` is why `config` is not what the service's file says; empty if it is.
    """
    store_dir, state_dir = config.store_dir.path, config.state_dir
    # Before Nix is asked: to connect has the daemon open its database, and leave it readable.
    seen = within(lambda: look_at_database(state_dir, config.store_dir))
    asked = ask_nix(nix)
    settings = Settings() if isinstance(asked.settings, Unknown) else asked.settings
    group = settings.build_group or config.build_group
    rooms, roomless = look_at_rooms(
        {"store": store_dir, "state": state_dir, "log": os.path.dirname(config.audit_log)}
    )
    return Facts(
        now=time.time(),
        uid=os.geteuid(),
        config=config,
        config_problem=config_problem,
        kernel=look_at_kernel(),
        nix=asked,
        daemon=within(lambda: look_at_daemon(state_dir)),
        accounts=within(lambda: look_at_accounts(group, settings)),
        database=seen,
        store=_known(lambda: listable(store_dir)),
        state=_known(lambda: exists(state_dir)),
        mount=within(lambda: look_at_mount(store_dir)),
        rooms=rooms,
        roomless=roomless,
        shelter=exists(SHELTER),
        service=look_at_service(config),
        helper=within(lambda: look_at_helper(config.socket)),
        audit=look_at_audit(config.audit_log),
    )


def _known(question: Callable[[], Known]) -> Known:
    answer = within(question)
    return Known.UNKNOWN if isinstance(answer, Unknown) else answer
