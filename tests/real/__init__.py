# SPDX-License-Identifier: MIT
"""Tests that drive real Nix: real builds, really interrupted, in a store of their own."""
