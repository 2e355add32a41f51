# SPDX-License-Identifier: MIT
"""The service: when it works, what it remembers, and what it tells of itself."""
