# SPDX-License-Identifier: MIT
"""Which versions have which bugs, and of which it is not known."""

import pytest

from storewarden.doctor.bugs import (
    COPIES,
    DISCONNECTED,
    ORPHANS,
    STRANDED,
    TEMPORARY,
    TERMINAL,
    Bug,
    Emulation,
    has,
)
from storewarden.doctor.patient import Severity
from storewarden.explain.failures import issue_url
from storewarden.nix_queries import Flavour, NixVersion, parse_version
from storewarden.store.store import Known
from well import PROBLEM, WELL, but, named, severities, with_version

YES, NO, UNKNOWN = Known.YES, Known.NO, Known.UNKNOWN
KNOWN: list[tuple[Bug, str, Known]] = [
    (STRANDED, "Nix) 2.3.16", NO),
    (STRANDED, "Nix) 2.4.0", YES),
    (STRANDED, "Nix) 2.35.2", YES),
    (STRANDED, "Nix) 2.36.0", UNKNOWN),
    (STRANDED, "Nix) 2.36.0pre20260822_88b09c64", UNKNOWN),
    (STRANDED, "Determinate Nix 3.22.2) 2.35.2", YES),
    (STRANDED, "Lix, like Nix) 2.95.3", NO),
    (STRANDED, "Lix, like Nix) 2.91.0", UNKNOWN),
    (ORPHANS, "Nix) 2.33.6", YES),
    (ORPHANS, "Nix) 2.34.0", NO),
    (ORPHANS, "Nix) 2.34.0pre20260101_abc", UNKNOWN),
    (ORPHANS, "Lix, like Nix) 2.95.3", UNKNOWN),
    (TERMINAL, "Nix) 2.32.1", YES),
    (TERMINAL, "Determinate Nix 3.20.0) 2.34.6", NO),
    (COPIES, "Nix) 2.31.9", YES),
    (COPIES, "Nix) 2.32.0", NO),
    (TEMPORARY, "Nix) 2.34.8", YES),
    (TEMPORARY, "Nix) 2.35.0", NO),
    (DISCONNECTED, "Nix) 2.28.5", YES),
    (DISCONNECTED, "Nix) 2.28.6", NO),
    (DISCONNECTED, "Nix) 2.30.3", YES),
    (DISCONNECTED, "Nix) 2.31.3", NO),
    (DISCONNECTED, "Nix) 2.33.0", UNKNOWN),
    (DISCONNECTED, "Nix) 2.34.0", NO),
]


def version(text: str) -> NixVersion:
    found = parse_version(f"nix ({text}")
    assert found is not None
    return found


@pytest.mark.parametrize(("bug", "text", "known"), KNOWN, ids=lambda one: getattr(one, "name", one))
def test_a_version_has_a_bug_or_not_or_that_is_not_known(bug: Bug, text: str, known: Known) -> None:
    assert has(bug, version(text)) is known


def test_every_issue_of_a_bug_has_an_address() -> None:
    for bug in (STRANDED, ORPHANS, TERMINAL, TEMPORARY, DISCONNECTED):
        assert bug.issues
        assert all(issue_url(issue).startswith("https://github.com/") for issue in bug.issues)


def test_under_gvisor_an_old_nix_is_a_problem() -> None:
    old = NixVersion(Flavour.NIX, (2, 32, 1), "2.32.1")
    patient = with_version(WELL, old)
    assert "terminal-error" not in severities(patient, PROBLEM)
    patient = but(patient, Emulation, gvisor=True)
    assert named(patient, "terminal-error").severity is PROBLEM


def test_of_a_newer_nix_nothing_is_claimed() -> None:
    new = NixVersion(Flavour.NIX, (2, 40, 0), "2.40.0")
    assert named(with_version(WELL, new), "versions").severity is Severity.UNKNOWN
