# SPDX-License-Identifier: MIT
"""Small files that others read at any moment."""

import os
import stat
from contextlib import suppress


def replace_file(path: str, content: bytes) -> None:
    """Make that the whole content of the file, 0644; who reads it sees the one before or this one.

    The draft lies beside it as `.NAME.draft`, which no reader of `*.prom` takes. `OSError`.
    """
    directory, name = os.path.split(path)
    draft = os.path.join(directory, f".{name}.draft")
    # A draft that a killed process left goes; never is one written through that somebody put there.
    with suppress(FileNotFoundError):
        os.unlink(draft)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            os.fchmod(fd, 0o644)  # whatever the umask
        os.rename(draft, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise


def open_regular(path: str, flags: int) -> int:
    """A descriptor of a regular file and nothing else; a named pipe there makes nobody wait.

    `OSError` where it is another thing, a link too.
    """
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(f"{path} is not a regular file")
