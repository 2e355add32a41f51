# SPDX-License-Identifier: MIT
"""What a Nix store is. Standard library only; reads, never writes; shared by both sides."""
