# SPDX-License-Identifier: MIT
"""storewarden itself, run in a rig as a user would run it, and what it reports."""

import contextlib
import os
import pwd
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from signal import SIGTERM
from typing import Any

from json_documents import checked, checked_records
from real import namespace as ns
from real.furniture import CHECKOUT, own_python
from real.rig import Rig, answers
from storewarden import audit_reading
from storewarden.readable import caller_of

Report = dict[str, Any]
AT_ONCE = ("--min-age", "0")


def warden(
    rig: Rig, *words: str, user: str = "root", seconds: int = 60
) -> subprocess.CompletedProcess[str]:
    """Run `storewarden WORDS` to its end."""
    return ns.run(rig.namespace, command(rig, *words), user=user, seconds=seconds)


def command(rig: Rig, *words: str) -> list[str]:
    """`storewarden WORDS`, with the rig's own audit log."""
    program = [rig.python, "-m", "storewarden"]
    return [*program, *words, "--audit-log", audit_log(rig)]


def scan(rig: Rig, *words: str, user: str = "root") -> Report:
    """The report of `storewarden scan --json --min-age 0 WORDS`, which must end with status 0."""
    done = warden(rig, "scan", "--json", *AT_ONCE, *words, user=user)
    assert done.returncode == 0, done.stdout + done.stderr
    report: Report = checked(done.stdout, "scan")
    return report


def typed(rig: Rig, text: str, user: str = "nobody") -> str:
    """That command as storewarden, run by that user as `warden` does, says to type it."""
    # The checkout has a command beside its interpreter, and the root of the lab has none.
    beside = f"{os.path.dirname(rig.python)}/storewarden"
    started = beside if rig.python.startswith(rig.base) else "src/storewarden/__main__.py"
    caller = caller_of([started], rig.python, ns.environment(rig.namespace, user))
    return replace(caller, root=user == "root").typed(text)


def finding(report: Report, path: str) -> Report:
    """What a report says of that path."""
    [found] = [one for one in report["findings"] if one["path"] == path]
    assert isinstance(found, dict)
    return found


def statuses(report: Report) -> dict[str, str]:
    """What became of each path."""
    return {one["path"]: one["status"] for one in report["outcomes"]}


def records(rig: Rig) -> list[Report]:
    """The audit log, which must be sound."""
    found = audit_reading.verify(audit_log(rig))
    assert not found.problem, found
    listed = list(map(dict, audit_reading.read_records(audit_log(rig))))
    checked_records(listed)
    return listed


def socket_path(rig: Rig) -> str:
    """Where the rig's helper listens."""
    return f"{rig.base}/run/helper.sock"


@contextlib.contextmanager
def helper(rig: Rig, *allowed: str) -> Iterator[None]:
    """While the root helper runs and obeys those users."""
    words = [w for user in allowed for w in ("--allow-uid", str(pwd.getpwnam(user).pw_uid))]
    words += [
        "--socket",
        socket_path(rig),
        *AT_ONCE,
        "--audit-log",
        audit_log(rig),
        "--idle-exit",
        "120",
    ]
    # Where it was installed: -I knows no PYTHONPATH.
    program = [own_python(CHECKOUT), "-I", "-m", "storewarden.helper"]
    log = f"{rig.base}/logs/helper"
    child = ns.start(rig.namespace, [*program, *words], log=log)
    ns.wait_until(
        lambda: answers(socket_path(rig)) or child.process.poll() is not None, "the helper"
    )
    assert child.process.poll() is None, ns.read(log)
    try:
        yield
    finally:
        ns.kill(rig.namespace, SIGTERM, child.pid)
        child.process.wait(10)


def audit_log(rig: Rig) -> str:
    return f"{rig.base}/audit/audit.jsonl"
