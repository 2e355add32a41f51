# SPDX-License-Identifier: MIT
"""A command run as if nobody looked on, and what it failed on."""
