# SPDX-License-Identifier: MIT
"""Not failures, but waits: somebody else holds what Nix wants."""

from storewarden.explain.failures import Failure, Step, signs

FAILURES = (
    Failure(
        name="waiting-lock",
        title="Nix waited for the lock of an output, or for a free place to build",
        cause="Another Nix process builds or fetches the same path, here or for a client that has"
        " gone. A lock file by itself holds up nobody: only a process that has it locked does.",
        tell="storewarden scan --json names the process. If none holds it, the wait is over.",
        steps=(
            Step("Who holds it?", "storewarden explain PATHS"),
            Step(
                "End that process, or wait. Never remove the lock file while it is held: two"
                " builds would then write into the same output."
            ),
        ),
        issues=(
            "NixOS/nix#1015",
            "NixOS/nix#2069",
            "NixOS/nix#10897",
            "NixOS/nix#13813",
            "NixOS/nix#15846",
        ),
        versions="all; a deadlock of two builds was fixed in 2022 (NixOS/nix#6468)",
        signs=signs(
            "waiting for lock on '…",
            "waiting for lock on /…",
            "waiting for locks or build slots",
            "waiting for locks, build slots or build users",
        ),
    ),
    Failure(
        name="waiting-collector",
        title="Nix waited for a collector",
        cause="Somebody collects, and new paths must wait until it is known what is needed. With"
        " min-free several builds may each have started a collector: they take turns.",
        steps=(
            Step("Who collects?", "sudo lsof /nix/var/nix/gc.lock"),
            Step("Wait. If it is min-free, ask for more at a time: raise max-free."),
        ),
        issues=("NixOS/nix#3224", "NixOS/nix#3334", "indexable-inc/index#3085"),
        versions="all",
        signs=signs("waiting for the big garbage collector lock"),
    ),
    Failure(
        name="waiting-exclusive",
        title="Nix waited until it is the only one that uses the store",
        cause="A newer Nix wants to change the layout of the database, and an older process is"
        " still running: often the daemon from before an update.",
        steps=(
            Step("Who uses it?", "sudo lsof /nix/var/nix/db/big-lock"),
            Step("End them; the daemon:", "sudo systemctl restart nix-daemon.service"),
            Step("Do not remove big-lock: it is what keeps the two apart."),
        ),
        issues=("NixOS/nix#6666", "NixOS/nixpkgs#177142"),
        versions="2.4 and newer, with ca-derivations",
        signs=signs("waiting for exclusive access to the nix store…"),
    ),
    Failure(
        name="database-busy",
        title="Nix waited for a database of its own",
        cause="Another Nix process writes to it. Nix tries again by itself; a warning now and"
        " then means nothing.",
        tell="If it does not end: something holds the database, or it lies on a network file"
        " system.",
        steps=(
            Step("Who uses it?", "sudo lsof /nix/var/nix/db/db.sqlite"),
            Step("What is it on?", "findmnt --target /nix/var/nix/db"),
        ),
        issues=("NixOS/nix#6656", "NixOS/nix#7998", "NixOS/nix#15987", "NixOS/nix#2292"),
        versions="all; since NixOS/nix#8199 (2023) it warns only when it lasts",
        signs=signs("sqlite database '…' is busy…"),
    ),
)
