# SPDX-License-Identifier: MIT
"""The audit log and its verification, for people."""

from collections.abc import Iterator

from storewarden.auditlog import Record, Verification
from storewarden.readable import count_text, shown, size_text
from storewarden.report.sweep import MARKS
from storewarden.style import PLAIN, Mark, Style

_MARKS = {str(status): mark for status, mark in MARKS.items()}


def record_line(record: Record, style: Style = PLAIN) -> str:
    """One audit record in one line; on a terminal it may be folded."""
    status = str(record.get("status")) if record.get("action") in {"result", "resumed"} else ""
    begin = f"{record.get('seq'):>6}  {record.get('time')}  {record.get('action'):<9}  "
    text = _text(record).removeprefix(status)
    return style.folded(shown(begin), shown(text), " " * 8, shown(status), _MARKS.get(status))


def _text(record: Record) -> str:
    match record:
        case {"action": "intent", "name": name, "kind": kind, "uid": uid, "requester": dict(who)}:
            text = f"to remove {kind} {name} of uid {uid}, asked by uid {who.get('uid')}"
            if who.get("via"):
                text += f" {who['via']}"
            if record.get("deriver"):
                text += f"; output {record['output']} of {record['deriver']}"
        case {"action": "result" | "resumed", "name": name, "status": status}:
            again = " (an interrupted removal was finished)" if record.get("resumed") else ""
            text = f"{status} {name}{again}"
            if count := record.get("files"):
                files = count_text(int(str(count)), "file")
                text += f", {files}, {size_text(int(str(record['bytes'])))}"
            for reason in _texts(record.get("reasons")):
                text += f"; {reason}"
        case {"action": "recovered"}:
            text = f"{record.get('torn_bytes')} torn bytes stand before this record"
        case _:
            text = ""
    return text


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def verification_lines(verification: Verification, style: Style = PLAIN) -> Iterator[str]:
    """What `audit verify` found, for a person."""
    records = count_text(verification.records, "record")
    if verification.problem:
        yield style.folded("", f" {shown(verification.problem)}", "    ", "DAMAGED:", Mark.WRONG)
        yield f"{records} before it are whole and in order"
        return
    files = count_text(len(verification.files), "file")
    yield f"{records} in {files}, {style.mark(Mark.WELL, 'all in order')}"
    if verification.open_intents:
        begun = count_text(verification.open_intents, "removal")
        yield f"{begun} begun and not ended: sudo storewarden scan --yes ends that"
    yield f"head {verification.head}"
