# SPDX-License-Identifier: MIT
"""The half that may run as root. Imports store and host only, and nothing from elsewhere."""
