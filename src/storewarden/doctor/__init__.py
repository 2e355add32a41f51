# SPDX-License-Identifier: MIT
"""What of this machine breeds debris or hides it: facts gathered, then judged; nothing changed."""
