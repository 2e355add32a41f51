# SPDX-License-Identifier: MIT
"""What the doctor has found, for people and as JSON (docs/json.md)."""

from collections.abc import Iterator, Sequence

from storewarden.doctor.diagnosis import Diagnosis, Severity
from storewarden.doctor.facts import Facts, Unknown
from storewarden.doctor.versions import NixVersion
from storewarden.explain.failures import issue_url
from storewarden.readable import PLAIN, Mark, Style, json_text, shown
from storewarden.report.columns import row

_WORDS = {
    Severity.PROBLEM: "PROBLEM",
    Severity.UNKNOWN: "unknown",
    Severity.NOTE: "note",
    Severity.OK: "ok",
}
_COUNTED = {
    Severity.PROBLEM: ("problem", "problems"),
    Severity.UNKNOWN: ("unknown", "unknown"),
    Severity.NOTE: ("note", "notes"),
    Severity.OK: ("ok", "ok"),
}
_MARKS = {Severity.PROBLEM: Mark.WRONG, Severity.UNKNOWN: Mark.KEPT, Severity.OK: Mark.WELL}
_TITLE = 12
"""The column in which a title begins."""
_OF_COMMANDS = " " * 18


def doctor_lines(found: Sequence[Diagnosis], style: Style = PLAIN) -> Iterator[str]:
    """Each diagnosis with reason, remedy and issues, the worst first; then how many there are."""
    before = None
    for one in found:
        if before is not None and not before is one.severity is Severity.OK:
            yield ""
        before = one.severity
        word, mark = _WORDS[one.severity], _MARKS.get(one.severity)
        title = f"{'':<{_TITLE - len(word)}}{shown(one.title)}"
        yield from style.wrapped("", title, " " * _TITLE, word, mark)
        if one.why:
            yield from row("why", one.why, style)
        for number, step in enumerate(one.steps):
            yield from row("" if number else "do", step.words, style) if step.words else ()
            if step.command:
                yield f"{_OF_COMMANDS}{style.mark(Mark.NAME, shown(step.command))}"
        for number, issue in enumerate(one.issues):
            yield from row("" if number else "see", issue_url(issue), style)
    yield ""
    yield _counts(found)


def doctor_json(facts: Facts, found: Sequence[Diagnosis]) -> str:
    """The document of `storewarden doctor --json`."""
    return json_text(
        {
            "storeDir": facts.config.store_dir.path,
            "stateDir": facts.config.state_dir,
            "nix": {
                "program": facts.nix.program,
                "version": _version(facts.nix.version),
                "daemonVersion": _version(facts.nix.daemon_version),
            },
            "diagnoses": [_diagnosis(one) for one in found],
        }
    )


def _counts(found: Sequence[Diagnosis]) -> str:
    words = []
    for severity, (single, plural) in _COUNTED.items():
        if count := sum(one.severity is severity for one in found):
            words.append(f"{count} {single if count == 1 else plural}")
    return ", ".join(words)


def _version(version: NixVersion | Unknown) -> str | None:
    return None if isinstance(version, Unknown) else version.name


def _diagnosis(one: Diagnosis) -> dict[str, object]:
    return {
        "name": one.name,
        "severity": one.severity.value,
        "title": one.title,
        "why": one.why or None,
        "steps": [{"words": s.words or None, "command": s.command or None} for s in one.steps],
        "issues": [issue_url(issue) for issue in one.issues],
    }
