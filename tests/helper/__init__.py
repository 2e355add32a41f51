# SPDX-License-Identifier: MIT
"""Tests of the half that may run as root: real locks, real kills, real hostile processes."""
