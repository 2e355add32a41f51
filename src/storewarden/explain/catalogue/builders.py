# SPDX-License-Identifier: MIT
"""Failures before a builder starts: its user, its sandbox, its terminal, its home."""

from storewarden.explain.failures import Failure, Step, signs

FAILURES = (
    Failure(
        name="build-user-missing",
        title="A build user is gone",
        cause="macOS 15 gave the uids 301 to 304 to users of its own, and so took away _nixbld1"
        " to _nixbld4.",
        tell="On another system, somebody removed the user and left it in the group.",
        steps=(
            Step("Which are left?", "dscl . -list /Users UniqueID | grep _nixbld"),
            Step(
                "Determinate's installer: make them anew.",
                "sudo /nix/nix-installer repair sequoia",
            ),
            Step("Otherwise run the script of NixOS/nix#10892."),
            Step("What the lost users left unfinished.", "storewarden scan --dry-run"),
        ),
        issues=(
            "NixOS/nix#10892",
            "nix-darwin/nix-darwin#1184",
            "DeterminateSystems/nix-installer#1001",
        ),
        versions="all, after the update to macOS 15",
        signs=signs("the user '…' in the group '…' does not exist"),
    ),
    Failure(
        name="build-group-missing",
        title="The group of the build users is missing or empty",
        cause="build-users-group in nix.conf names a group that does not exist or has no members:"
        " an installation that was not finished, or nix.conf without its users, as in images.",
        steps=(
            Step("What is set?", "nix show-config | grep build-users-group"),
            Step("Who is in it? (macOS: dscl . -read /Groups/nixbld)", "getent group nixbld"),
            Step("In a container where only root builds: build-users-group = (empty) in nix.conf"),
        ),
        issues=("NixOS/nix#6064", "NixOS/nix#12343", "LnL7/nix-docker#9"),
        versions="all",
        signs=signs(
            "the group '…' specified in 'build-users-group' does not exist",
            "the build users group '…' has no members",
        ),
    ),
    Failure(
        name="build-users-busy",
        title="No build user is free",
        cause="Every member of the build users' group has its lock held by a Nix process. Since"
        " 2.4 Nix waits for one; before, it failed.",
        tell="If nothing is building, some process still holds the locks: a worker whose client"
        " has gone, or one that hangs.",
        steps=(
            Step("Who holds them?", "sudo lsof /nix/var/nix/userpool/* /nix/var/nix/userpool2/*"),
            Step("max-jobs above the number of build users makes it likely: lower it."),
        ),
        issues=("NixOS/nix#3330", "NixOS/nixpkgs#6341", "NixOS/nix#3564"),
        versions="all; waits since 2.4",
        signs=signs(
            "all build users are currently in use; consider creating additional users…",
            "waiting for uid to build…",
            "waiting for a free build user id for…",
        ),
    ),
    Failure(
        name="home-exists",
        title="/homeless-shelter exists",
        cause="A builder without a sandbox, that may write to /, made it. Nix refuses to build"
        " without a sandbox as long as it is there.",
        steps=(
            Step("See what is in it; it is nobody's home.", "sudo find /homeless-shelter | head"),
            Step("Remove it.", "sudo rm -r /homeless-shelter"),
        ),
        issues=("NixOS/nix#11295", "ipetkov/crane#815", "DavHau/nix-portable#118"),
        versions="all, where builders may write to /: as root in containers, nix-portable",
        signs=signs(
            "home directory '…homeless-shelter' exists; please remove it…",
            "directory '…homeless-shelter' exists; please remove it…",
        ),
    ),
    Failure(
        name="sandbox-refused",
        title="The kernel refuses what the sandbox is made of",
        cause="Nix needs new namespaces for a sandbox. Containers, chroots, hardened kernels and"
        " gVisor withhold some of them.",
        tell="unshare -Urm true as the same user fails in the same way where the kernel is it. In"
        " a chroot it always does.",
        steps=(
            Step("May it?", "unshare -Urm true"),
            Step(
                "Hardened kernel: allow it.",
                "sudo sysctl kernel.unprivileged_userns_clone=1",
            ),
            Step(
                "In a container: sandbox = false. Interrupted content-addressed builds then leave"
                " debris; storewarden finds it."
            ),
        ),
        issues=("NixOS/nix#7783", "NixOS/nix#13128", "NixOS/nix#2633", "NixOS/nix#2404"),
        versions="all",
        signs=signs(
            "this system does not support the kernel namespaces that are required for sandboxing…",
            "cloning builder process: operation not permitted",
            "setting up a private mount namespace: operation not permitted",
            "getting sandbox mount namespace: no such file or directory",
            "unable to load seccomp bpf program: invalid argument",
        ),
    ),
    Failure(
        name="terminal-refused",
        title="Nix and the builder's pseudoterminal disagree",
        cause="The builder's output comes through a pseudoterminal. Where it ends in an"
        " unexpected way, as under gVisor, Nix before 2.34 takes the end for an error. A build"
        " that is cut off so leaves its locks, and without a sandbox its output.",
        steps=(
            Step("Run it again: it is a race."),
            Step("Update Nix to 2.34 or newer."),
            Step("What the failed builds left.", "storewarden scan --dry-run"),
        ),
        issues=(
            "NixOS/nix#15181",
            "NixOS/nix#15323",
            "google/gvisor#13738",
            "cachix/devenv#2819",
        ),
        versions="up to 2.33; the missing ioctl of gVisor is another matter, and stays",
        signs=signs(
            "reading a line: input/output error",
            "getting pseudoterminal attributes: inappropriate ioctl for device",
        ),
    ),
)
