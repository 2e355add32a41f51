# SPDX-License-Identifier: MIT
"""The audit log and its verification, for people."""

from collections.abc import Iterator

from storewarden.auditlog import Record, Verification, flaw
from storewarden.readable import PLAIN, Mark, Style, count_text, shown, size_text
from storewarden.report.sweep import MARKS

_MARKS = {str(status): mark for status, mark in MARKS.items()}


def record_line(record: Record, style: Style = PLAIN) -> str:
    """One audit record in one line; on a terminal it may be folded."""
    concludes = str(record.get("action")) in {"result", "resumed"}
    status = str(record.get("status")) if concludes and not flaw(record) else ""
    number, moment, action = (str(record.get(name)) for name in ("seq", "time", "action"))
    text = _text(record).removeprefix(status)
    begin = f"{number:>6}  {moment}  {action:<9}  "
    return style.folded(shown(begin), shown(text), " " * 8, shown(status), _MARKS.get(status))


def _text(record: Record) -> str:
    if why := flaw(record):
        return f"no record of storewarden's: {why}"
    match record:
        case {"action": "intent", "name": name}:
            text = f"to remove {record.get('kind', 'an entry')} {name}"
            if "uid" in record:
                text += f" of uid {record['uid']}"
            match record.get("requester"):
                case {"uid": uid, **who}:
                    text += f", asked by uid {uid}"
                    text += f" {who['via']}" if who.get("via") else ""
            if record.get("deriver"):
                text += f"; output {record.get('output', 'unknown')} of {record['deriver']}"
        case {"action": "result" | "resumed", "status": status}:
            again = " (an interrupted removal was finished)" if record.get("resumed") else ""
            text = f"{status} {record.get('name', '')}{again}"
            match record:
                case {"files": int(files), "bytes": int(size)} if files:
                    text += f", {count_text(files, 'file')}, {size_text(size)}"
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
