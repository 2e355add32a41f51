# SPDX-License-Identifier: MIT
"""Which interpreter the tests start: imported before whatever takes `sys.executable` up.

In the build of the Nix package (nix/package.nix) pytest's own has its modules by PYTHONPATH, which
the isolated ones that are started do not heed, and some tests set it for themselves.
"""

import os
import sys

sys.executable = os.environ.get("STOREWARDEN_TEST_PYTHON", sys.executable)
