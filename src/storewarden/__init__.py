# SPDX-License-Identifier: MIT
"""storewarden repairs Nix stores. Nothing is imported here: the root helper passes through."""

__version__ = "0.1.0"
