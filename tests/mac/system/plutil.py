# SPDX-License-Identifier: MIT
"""plutil -lint FILE...: whether each is a property list, as far as its structure goes."""

import plistlib
import sys

wrong = 0
for name in sys.argv[2:]:
    try:
        with open(name, "rb") as file:
            plistlib.load(file)
        answer = "OK"
    except (OSError, ValueError, plistlib.InvalidFileException) as cause:
        answer, wrong = str(cause), 1
    sys.stdout.write(f"{name}: {answer}\n")
sys.exit(wrong)
