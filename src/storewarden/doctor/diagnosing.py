# SPDX-License-Identifier: MIT
"""From facts to diagnoses, worst first. Pure."""

from storewarden.doctor.diagnosis import Diagnosis, Severity
from storewarden.doctor.facts import Database, Facts, Unknown
from storewarden.doctor.of_builds import of_builds
from storewarden.doctor.of_nix import of_nix
from storewarden.doctor.of_service import of_service
from storewarden.doctor.of_store import of_store
from storewarden.store.fact import Known

_ORDER = list(Severity)


def diagnose(facts: Facts) -> tuple[Diagnosis, ...]:
    """Everything that can be said, the worst first, else in the order in which it matters."""
    found = [*of_nix(facts), *of_store(facts), *of_builds(facts), *of_service(facts)]
    return tuple(sorted(found, key=lambda one: _ORDER.index(one.severity)))


def blind(facts: Facts) -> bool:
    """Whether Nix, the store or its database cannot be asked or read, so little else can be."""
    return (
        isinstance(facts.nix.version, Unknown)
        or facts.nix.answers.known is Known.NO
        or isinstance(facts.daemon, Unknown)
        or facts.store is not Known.YES
        or (isinstance(facts.database, Database) and bool(facts.database.broken))
    )
