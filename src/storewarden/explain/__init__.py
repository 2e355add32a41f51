# SPDX-License-Identifier: MIT
"""Why an entry, a lock or a failing build is as it is. It tells, and decides nothing."""
