# SPDX-License-Identifier: MIT
"""What of this machine breeds debris or hides it: seen, then judged; nothing changed."""
