# SPDX-License-Identifier: MIT
"""`storewarden doctor`: which settings here cause or hide debris.

All checks stand here. A new one is a file here with `look` and `judge`, and its name in `CHECKS`.
"""

from collections.abc import Iterator
from typing import Protocol

from storewarden.config import Config
from storewarden.doctor import bugs, builds, nix, prevention, service, store, users
from storewarden.doctor.nix import Installation
from storewarden.doctor.patient import Diagnosis, Patient, Severity, Unknown, admit
from storewarden.doctor.store import Database, Storage
from storewarden.store.nix import Nix
from storewarden.store.store import Known


class Check(Protocol):
    """One subject, which is a module. It changes nothing and needs no privilege."""

    def look(self, patient: Patient) -> object:
        """The facts, in a dataclass of their own; each question has an end."""

    def judge(self, patient: Patient) -> Iterator[Diagnosis]:
        """What facts mean, its own and those of others. Looks at nothing (tests hold that)."""


CHECKS: tuple[Check, ...] = (nix, bugs, store, builds, prevention, users, service)
"""In the order in which it matters what they find."""
_BEFORE_NIX: tuple[Check, ...] = (store, builds)
"""Those look first: to connect has the daemon open its database, and leave it readable."""
_ORDER = list(Severity)


def examine(config: Config, config_problem: str, program: Nix) -> Patient:
    """What can be seen of this machine now, by this user.

    `config_problem` is why `config` is not what the service's file says; empty if it is.
    """
    patient = admit(config, config_problem, program)
    for check in sorted(CHECKS, key=lambda check: check not in _BEFORE_NIX):
        patient = patient.having(check.look(patient))
    return patient


def diagnose(patient: Patient) -> tuple[Diagnosis, ...]:
    """Everything that can be said, the worst first, else in the order in which it matters."""
    found = [one for check in CHECKS for one in check.judge(patient)]
    return tuple(sorted(found, key=lambda one: _ORDER.index(one.severity)))


def blind(patient: Patient) -> bool:
    """Whether Nix, the store or its database cannot be asked or read, so little else can be."""
    asked, storage = patient[Installation], patient[Storage]
    return (
        isinstance(asked.version, Unknown)
        or asked.answers.known is Known.NO
        or isinstance(asked.daemon, Unknown)
        or storage.listed is not Known.YES
        or (isinstance(storage.database, Database) and bool(storage.database.broken))
    )
