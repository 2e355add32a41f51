# SPDX-License-Identifier: MIT
"""The only place that asks which system this is. Standard library only.

Both modules have the same functions with the same types; None always means "cannot be told here".
"""

import sys

if sys.platform == "darwin":
    from storewarden.host.darwin import (
        ALLOCATED,
        FIRST_ALLOCATED,
        PER_SLOT,
        lock_holders,
        make_writable,
        mounts,
        peer,
        processes_inside,
        processes_of,
        rename_exclusive,
    )
else:
    from storewarden.host.linux import (
        ALLOCATED,
        FIRST_ALLOCATED,
        PER_SLOT,
        lock_holders,
        make_writable,
        mounts,
        peer,
        processes_inside,
        processes_of,
        rename_exclusive,
    )

__all__ = [
    "ALLOCATED",
    "FIRST_ALLOCATED",
    "PER_SLOT",
    "lock_holders",
    "make_writable",
    "mounts",
    "peer",
    "processes_inside",
    "processes_of",
    "rename_exclusive",
]
