# SPDX-License-Identifier: MIT
"""The removal engine run inside a root, where it can be stopped or killed at any of its steps."""

import contextlib
from collections.abc import Iterator

from real import namespace as ns
from real.rig import Rig
from real.warden import audit_log

STEPS = ("proved", "intended", "unchanged", "taken", "purging", "purged")
OF_A_LOCK = ("proved", "intended", "taken")
# argv: audit log, step, what to do there, path.
_PROGRAM = """
import os, signal, sys
from storewarden.audit import Requester
from storewarden import cli, observe
from storewarden.cli.options import config_of
from storewarden.helper import engine
from storewarden.client import requests_for
from storewarden.scan import sweep

log, wanted, how, path = sys.argv[1:]
asked = cli.parser().parse_args(["scan", "--yes", "--min-age", "0", "--audit-log", log])
store = observe.open_store(config_of(asked))
found = [f for f in sweep(store).findings if store.store_dir.join(f.base_name) == path]

def checkpoint(step):
    if step != wanted:
        return
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    print("held", flush=True)
    sys.stdin.read()

requester = Requester(os.getuid(), os.getpid(), "the lab")
for outcome in engine.remove(
    store, requests_for(found), audit_log=log, requester=requester, checkpoint=checkpoint
):
    print(outcome.status.value, file=sys.stderr, flush=True)
"""


def killed_at(rig: Rig, step: str, path: str) -> None:
    """Begin to remove that entry, and die by SIGKILL at that step."""
    done = ns.run(rig.namespace, _words(rig, step, "kill", path))
    assert done.returncode in {-9, 137}, f"{step} was not reached:\n{done.stderr}"


@contextlib.contextmanager
def stopped_at(rig: Rig, step: str, path: str) -> Iterator[None]:
    """While the removal of that entry stands still at that step; it goes on afterwards."""
    with ns.holding(rig.namespace, _words(rig, step, "stop", path)):
        yield


def _words(rig: Rig, step: str, how: str, path: str) -> list[str]:
    ours = ns.environment(rig.namespace, "root")
    path_of = [f"{name}={ours[name]}" for name in ("PYTHONPATH", "PYTHONPYCACHEPREFIX")]
    return ["env", *path_of, rig.python, "-c", _PROGRAM, audit_log(rig), step, how, path]
