# SPDX-License-Identifier: MIT
"""A stream passed through and read on the way: byte for byte, each piece at once."""

import os
import select
from collections.abc import Callable

_PIECE = 64 * 1024


def pass_on(source: int, sink: int | None, feed: Callable[[bytes], None]) -> OSError | None:
    """Read descriptor `source` to its end; the rest as `pass_pieces`. `OSError` if it cannot be."""
    return pass_pieces(lambda: _read(source), sink, feed)


def pass_pieces(
    read: Callable[[], bytes], sink: int | None, feed: Callable[[bytes], None]
) -> OSError | None:
    """Write each piece to `sink` first, then feed it, until `read` gives an empty one.

    Gives what is wrong with `sink`. If its reader has gone, reading ends too, so that whoever
    writes learns of it; after any other error what is left is only read.
    """
    trouble: OSError | None = None
    while piece := read():
        if sink is not None and trouble is None:
            try:
                _write(sink, piece)
            except BrokenPipeError as cause:
                feed(piece)
                return cause
            except OSError as cause:
                trouble = cause
        feed(piece)
    return trouble


def _read(source: int) -> bytes:
    while True:
        try:
            return os.read(source, _PIECE)
        except BlockingIOError:
            select.select([source], [], [])


def _write(sink: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        try:
            left = left[os.write(sink, left) :]
        except BlockingIOError:  # another process may have made it so
            select.select([], [sink], [])
