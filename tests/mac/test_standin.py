# SPDX-License-Identifier: MIT
"""The stand-in keeps to what the sources say of macOS: else nothing seen on it would count."""

import errno
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from mac.machine import STOREWARDEN, Mac, opened
from mac.root import OWN_CHECKOUT, UID, Root
from real import namespace as ns

_PYTHON = f"{OWN_CHECKOUT}/.venv/bin/python"
_JOB = """\
<plist version="1.0"><dict>
<key>Label</key><string>test.job</string>
<key>ProgramArguments</key><array><string>/bin/sh</string><string>-c</string>
<string>{script}</string></array>
{more}
</dict></plist>
"""


@pytest.fixture(scope="module")
def some_mac(new_disk: Root) -> Iterator[Mac]:
    """One for all that leave it as it was, as far as the others can tell."""
    with opened(new_disk, UID) as machine:
        yield machine


def told(mac: Mac, script: str, user: str = "root") -> Any:  # noqa: ANN401 - JSON
    """What that Python prints as JSON, run as that user."""
    done = mac.run(_PYTHON, "-c", f"import json, os, ctypes\n{script}", user=user)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def load(mac: Mac, script: str, more: str = "<key>RunAtLoad</key><true/>") -> None:
    """Have launchd load a job of root's."""
    with open(mac.outside("/Library/LaunchDaemons/test.plist"), "w") as file:
        file.write(_JOB.format(script=script, more=more))
    done = mac.run(
        "launchctl", "bootstrap", "system", "/Library/LaunchDaemons/test.plist", user="root"
    )
    assert done.returncode == 0, done.stderr


def launchctl(mac: Mac, *words: str, user: str = "root") -> tuple[int, str]:
    """Its exit status, and all it prints."""
    done = mac.run("launchctl", *words, user=user)
    return done.returncode, done.stdout + done.stderr


def test_it_looks_like_a_mac_to_every_python_isolated_or_not(some_mac: Mac) -> None:
    script = "import sys, os; print(sys.platform, os.path.exists('/proc'), hasattr(os, 'pipe2'))"
    for words in (
        [_PYTHON, "-c"],
        [_PYTHON, "-I", "-B", "-c"],
        ["/opt/linux/python/bin/python3", "-Ic"],
    ):
        assert some_mac.run(*words, script).stdout == "darwin False False\n"
    links = {name: os.readlink(f"{some_mac.root.top}/{name}") for name in ("etc", "tmp", "var")}
    assert links == {name: f"private/{name}" for name in links}


def test_libc_fails_as_there(some_mac: Mac) -> None:
    found = told(
        some_mac,
        """
libc = ctypes.CDLL(None, use_errno=True)
libproc = ctypes.CDLL("/usr/lib/libproc.dylib", use_errno=True)
def error(call, *words):
    ctypes.set_errno(0)
    return [call(*words), ctypes.get_errno()]
def refusal(call, *words):
    try:
        call(*words)
    except OSError as cause:
        return cause.errno
os.chdir("/private/var/tmp")
os.mkdir("d")
for name in ("a", "b", "d/f"):
    open(name, "w").close()
fd = os.open(".", os.O_RDONLY)
found = {"there": error(libc.renameatx_np, fd, b"a", fd, b"b", 4)}
found["both"] = error(libc.renameatx_np, fd, b"a", fd, b"b", 6)
found["free"] = error(libc.renameatx_np, fd, b"a", fd, b"c", 4)
found["small"] = error(libproc.proc_listpids, 4, 0, (ctypes.c_int * 1)(), 3)
found["directory"] = refusal(os.unlink, "d")
os.chflags("d/f", 2)
found["flags"] = os.stat("d/f").st_flags
found["fixed"] = [
    refusal(os.unlink, "d/f"), refusal(os.rename, "d/f", "x"), refusal(os.chmod, "d/f", 0)
]
os.chflags("d/f", 0)
os.chflags("d", 2)
found["in fixed"] = [refusal(os.unlink, "d/f"), refusal(os.mkdir, "d/new"), refusal(os.rmdir, "d")]
print(json.dumps(found))
""",
    )
    assert found == {
        "there": [-1, errno.EEXIST],
        "both": [-1, errno.EINVAL],
        "free": [0, 0],
        "small": [0, errno.ENOMEM],
        "directory": errno.EPERM,
        "flags": 2,
        "fixed": [errno.EPERM] * 3,
        "in fixed": [errno.EPERM] * 3,
    }


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE])
def test_a_call_of_choice_fails_with_an_error_of_choice(some_mac: Mac, number: int) -> None:
    asked = "import storewarden.host as h; print(json.dumps(h.processes_of([0])))"
    assert 1 in told(some_mac, asked)
    with some_mac.failing("proc_listpids", number):
        assert told(some_mac, asked) is None
    assert 1 in told(some_mac, asked)


def test_a_peer_is_known_by_who_it_was_when_it_connected(some_mac: Mac) -> None:
    found = told(
        some_mac,
        """
import socket, storewarden.host as host
server = socket.socket(socket.AF_UNIX)
server.bind("/private/tmp/peer")
server.listen()
os.chmod("/private/tmp/peer", 0o666)
client = socket.socket(socket.AF_UNIX)
alone = None
try:
    host.peer(client)
except OSError as cause:
    alone = cause.errno
os.seteuid(501)
client.connect("/private/tmp/peer")
os.seteuid(0)
print(json.dumps([host.peer(server.accept()[0]), host.peer(client), alone, os.getpid()]))
""",
    )
    connected, listening, alone, pid = found
    assert connected == [501, pid]
    assert listening == [0, pid]
    assert alone == errno.ENOTCONN


def test_a_label_is_known_until_its_process_has_ended_and_a_while_longer(mac: Mac) -> None:
    assert launchctl(mac, "print", "system/test.job")[0] == 113
    load(mac, "trap 'sleep 0.3; exit' TERM; while :; do sleep 0.1; done")
    ns.wait_until(lambda: "state = running" in launchctl(mac, "print", "system/test.job")[1], "it")
    again = "bootstrap", "system", "/Library/LaunchDaemons/test.plist"
    assert launchctl(mac, *again) == (5, "Bootstrap failed: 5: Input/output error\n")
    assert launchctl(mac, "bootout", "system/test.job") == (0, "")
    assert launchctl(mac, *again)[0] == 5
    assert "state = SIGTERMed" in launchctl(mac, "print", "system/test.job")[1]
    ns.wait_until(lambda: launchctl(mac, "print", "system/test.job")[0] == 113, "the end")
    assert launchctl(mac, "bootout", "system/test.job") == (
        3,
        "Boot-out failed: 3: No such process\n",
    )
    assert launchctl(mac, *again)[0] == 0


def test_a_job_is_kept_alive_as_its_list_says(mac: Mac) -> None:
    mac.set("throttle", 0)
    runs = mac.outside("/Users/you/runs")
    keep = "<key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>"
    load(mac, "echo >>/Users/you/runs; test $(wc -l &lt;/Users/you/runs) -ge 3", keep)
    ns.wait_until(lambda: os.path.exists(runs) and ns.read(runs) == "\n\n\n", "three starts")
    ns.wait_until(lambda: "runs = 3" in launchctl(mac, "print", "system/test.job")[1], "its end")
    assert "last exit code = 0" in launchctl(mac, "print", "system/test.job")[1]


def test_only_a_login_at_the_screen_makes_a_gui_domain(mac: Mac) -> None:
    assert launchctl(mac, "print", "gui/501")[0] == 0
    assert launchctl(mac, "print", "user/501")[0] == 0
    launchctl(mac, "standin-logout", "501")
    assert launchctl(mac, "print", "gui/501") == (
        125,
        "125: Domain does not support specified action\n",
    )
    assert launchctl(mac, "print", "user/501")[0] == 0
    with open(mac.outside("/Library/LaunchAgents/test.plist"), "w") as file:
        file.write(_JOB.format(script="exit", more=""))
    asked = [("gui/501", 125), ("user/501", 134), ("gui/502", 125), ("system", 5)]
    for domain, status in asked:
        words = "bootstrap", domain, "/Library/LaunchAgents/test.plist"
        assert launchctl(mac, *words, user="you")[0] == status, domain


def test_sudo_runs_what_is_asked_for_as_root_and_says_for_whom(some_mac: Mac) -> None:
    done = some_mac.run("sudo", "sh", "-c", "id -u; echo $SUDO_USER $SUDO_UID $HOME")
    assert done.stdout == "0\nyou 501 /Users/you\n"
    assert some_mac.run("sudo", STOREWARDEN, "--version", user="other").returncode == 1
