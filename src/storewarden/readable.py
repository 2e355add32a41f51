# SPDX-License-Identifier: MIT
"""Names, numbers, sizes and times as people can read them safely, everywhere in the same words."""

from datetime import UTC, datetime

_KIB = 1024
_AGES = ((86400 * 2, 86400, "days"), (7200, 3600, "h"), (120, 60, "min"), (0, 1, "s"))


def shown(text: str) -> str:
    """Text that a builder may have chosen, safe for a terminal: only printable ASCII is left."""
    return "".join(c if c.isprintable() and c.isascii() else ascii(c)[1:-1] for c in text)


def size_text(count: int) -> str:
    """Bytes as people read them."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < _KIB:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _KIB
    return f"{value:.1f} GiB"


def count_text(count: int, noun: str) -> str:
    """`1 file`, `2 files`, `3 processes`: how many there are of what is called so."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"


def age_text(seconds: float) -> str:
    """A length of time as people read it."""
    for least, unit, name in _AGES:
        if seconds >= least:
            return f"{seconds / unit:.0f} {name}"
    return "less than 0 s"


def since(seconds: float, now: float) -> str:
    """How long ago that Unix time is."""
    return age_text(max(0.0, now - seconds))


def moment(seconds: float, now: float) -> str:
    """A Unix time, as the audit log has it, and how long ago that is."""
    day = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{day} ({since(seconds, now)} ago)"
