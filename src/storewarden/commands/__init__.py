# SPDX-License-Identifier: MIT
"""The subcommands: a module each, with what may be said to it and what it does."""
