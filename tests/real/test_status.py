# SPDX-License-Identifier: MIT
"""`storewarden status`, and metrics, of a service that is at work on real Nix."""

from command import PROGRAM, report, run
from programs import promtool
from real import namespace as ns
from real.rig import Rig
from real.watching import runtime_dir, service
from storewarden.daemon.metrics import exposition
from storewarden.daemon.status import read_status


def test_the_status_of_a_real_service_is_told_while_it_runs_and_after(
    rig: Rig,
) -> None:
    command = [*PROGRAM, "status", "--json", "--config", f"{rig.base}/logs/config.toml"]
    with service(rig):
        ns.wait_until(lambda: read_status(runtime_dir(rig)) is not None, "its first word")
        done = run(command)
        assert (done.returncode, done.stderr) == (0, "")
        document = report(done)
        assert (document["running"], document["status"]["wakes"]) == (True, "inotify")
        assert document["status"]["sweeps"] == 1
        status = read_status(runtime_dir(rig))
        assert status is not None
        checked = promtool("check", "metrics", text=exposition(status).decode())
        assert (checked.returncode, checked.stderr) == (0, "")
    done = run(command)
    assert (done.returncode, report(done)["running"]) == (4, False)
