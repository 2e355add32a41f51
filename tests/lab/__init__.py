# SPDX-License-Identifier: MIT
"""The lab: Debian roots, each with its own version of Nix, booted with real systemd."""
