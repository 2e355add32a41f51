# SPDX-License-Identifier: MIT
"""What cannot be seen or told from here, as in a container or a sandbox, in plain words."""

import os
from collections.abc import Iterator, Sequence

from storewarden.sight import Sight
from storewarden.strays import Found


def limits(sight: Sight, found: Sequence[Found]) -> Iterator[str]:
    """A sentence for each thing that limits a sweep which found that, and what to do about it."""
    store = sight.store
    if store.apart():
        yield (
            "nix-daemon runs outside this container or sandbox, so its builds and their locks"
            " cannot be seen, and this process removes nothing; run storewarden where nix-daemon"
            " runs"
        )
    if any(entry.uid == store.hidden_uid for entry, _ in found):
        yield (
            f"uid {store.hidden_uid} stands for every user whom this user namespace does not know,"
            " so who owns what cannot be told here; it can where storewarden runs outside"
        )
    if sight.mounts is None:
        yield (
            "/proc is not mounted or not readable here, so processes, locks and mounts cannot be"
            " seen, and nothing is removed; mount it: mount -t proc proc /proc"
        )
    # Nix makes the second directory where it allocates uids by itself (auto-allocate-uids).
    if not store.build_users.uids and not os.path.isdir(f"{store.state_dir}/userpool2"):
        yield (
            "there are no build users here (see --build-group), so builds run as the store's owner:"
            " what they strand cannot be told from Nix's own copies, and is only reported"
        )
