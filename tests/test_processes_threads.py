# SPDX-License-Identifier: MIT
"""A process whose main thread has ended: psutil calls it a zombie, its threads live on."""

import os
import subprocess
import sys

import pytest

from storewarden.processes import processes_of

LEADERLESS = """
import ctypes, threading, sys, time
def work():
    time.sleep(0.2)
    print("alone", flush=True)
    sys.stdin.read()
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no such zombies")
def test_a_process_whose_main_thread_has_ended_is_alive() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEADERLESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"alone\n"
            found = processes_of([os.geteuid()])
            assert found is None or child.pid in found
        finally:
            child.kill()
