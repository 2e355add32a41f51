# SPDX-License-Identifier: MIT
"""`python -m storewarden` is the `storewarden` command."""

import sys

from storewarden.cli import main

if __name__ == "__main__":
    sys.exit(main())
