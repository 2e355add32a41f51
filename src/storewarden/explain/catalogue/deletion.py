# SPDX-License-Identifier: MIT
"""Failures of deleting and collecting."""

from storewarden.explain.failures import Failure, Step, signs

FAILURES = (
    Failure(
        name="delete-in-use",
        title="The collector met a path that another one refers to",
        cause="A build registered the second path while the collector worked, or the database"
        " holds a path whose file is gone.",
        tell="Run it again: if it fails at the same path, it is the database.",
        steps=(
            Step("Run it again when nothing builds."),
            Step("Have Nix forget what is registered and not there.", "sudo nix-store --verify"),
        ),
        issues=("NixOS/nix#6757", "NixOS/nix#7988"),
        versions="all",
        signs=signs("cannot delete path '…' because it is in use by '…'"),
    ),
    Failure(
        name="delete-alive",
        title="Nix does not delete a path, because something needs it",
        cause="A root, a running process, a Nix that works, or another path that refers to it."
        " Paths that refer to it must be named in the same command, rooted or not.",
        tell="With sudo the path stands in SUDO_COMMAND, which Nix takes for a use: delete from a"
        " root shell (sudo -i) or as an ordinary user.",
        steps=(
            Step("Why is it there?", "storewarden explain PATHS"),
            Step("Which roots?", "nix-store --query --roots PATHS"),
            Step("Which paths refer to it?", "nix-store --query --referrers-closure PATHS"),
            Step(
                "Delete it with them, if no root is among them.",
                "nix-store --query --referrers-closure PATHS | xargs nix-store --delete",
            ),
        ),
        issues=(
            "NixOS/nix#6141",
            "NixOS/nix#6135",
            "NixOS/nix#7488",
            "NixOS/nix#7053",
            "NixOS/nix#8189",
        ),
        versions="all; 2.35 has nix store delete --also-referrers and --skip-alive",
        signs=signs(
            "cannot delete path '…' since it is still alive…",
            "cannot delete path '…' because it's…",
            "cannot delete path '…'",
        ),
        needs_path=True,
    ),
    Failure(
        name="delete-denied",
        title="Nix may not change a path that it is to delete",
        cause="Whoever deletes does not own the path: a store without a daemon in which something"
        " was once written as another user.",
        steps=(
            Step("Whose is it?", "ls -ld PATHS"),
            Step("What else is not yours, and unregistered?", "storewarden scan --dry-run"),
        ),
        issues=("NixOS/nix#6765", "NixOS/nix#3435"),
        versions="all",
        signs=signs("chmod '/…': operation not permitted"),
        needs_path=True,
    ),
    Failure(
        name="illegal-name",
        title="A name in the store stops the collector",
        cause="Nix 2.4 before its release called the locks of content-addressed outputs"
        " <derivation>!<output>.lock; later versions cannot read such a name.",
        tell="storewarden scan shows it as foreign.",
        steps=(
            Step("List them.", "find /nix/store -maxdepth 1 -name '*!*.lock' -ls"),
            Step("If they are empty and nothing builds, remove them as root."),
        ),
        issues=("NixOS/nix#5176",),
        versions="locks of 2.4 before its release",
        signs=signs("store path '…' contains illegal character '…'"),
    ),
)
