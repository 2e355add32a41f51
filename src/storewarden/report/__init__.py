# SPDX-License-Identifier: MIT
"""What was found and done, for people and as JSON (docs/json.md)."""
