# SPDX-License-Identifier: MIT
"""storewarden as a user without a network has it: a virtual environment copied into place."""

import importlib.util
import os
import shutil
import subprocess
import sys

from storewarden.setup.code import NEEDED, PACKAGE, all_shipped


def deliver(directory: str, python: str, version: str, owner: int | None = None) -> str:
    """Make that directory one with `bin/python`, a link to `python` of that version (as 3.11).

    It belongs to the user `owner` and can be changed by everybody: no service may run it. Gives
    the path of its interpreter.
    """
    library = f"{directory}/lib/python{version}/site-packages"
    os.makedirs(f"{directory}/bin")
    os.symlink(python, f"{directory}/bin/python")
    with open(f"{directory}/pyvenv.cfg", "w", encoding="ascii") as file:
        file.write(f"home = {os.path.dirname(python)}\ninclude-system-site-packages = false\n")
    no_caches = shutil.ignore_patterns("__pycache__")
    for name in NEEDED:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        shutil.copytree(os.path.dirname(spec.origin), f"{library}/{name}", ignore=no_caches)
    shutil.copytree(PACKAGE, f"{library}/storewarden", ignore=no_caches)
    for name, content in all_shipped().items():
        os.makedirs(os.path.dirname(f"{library}/storewarden/{name}"), exist_ok=True)
        with open(f"{library}/storewarden/{name}", "wb") as shipped:
            shipped.write(content)
    os.chmod(directory, 0o777)  # noqa: S103 - the point: a service must not run this
    if owner is not None:
        subprocess.run(["chown", "-R", f"{owner}:{owner}", directory], check=True)
    return f"{directory}/bin/python"


def deliver_here(directory: str) -> str:
    """The same with the interpreter that runs the tests, compiled as pip leaves it."""
    base: str = getattr(sys, "_base_executable", "") or sys.executable
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    python = deliver(directory, os.path.realpath(base), version)
    subprocess.run([python, "-m", "compileall", "-q", f"{directory}/lib"], check=True)
    return python
