# SPDX-License-Identifier: MIT
"""Failures of the machine around Nix: the daemon, the disk, permissions, macOS."""

from storewarden.explain.failures import Failure, Step, signs

FAILURES = (
    Failure(
        name="no-space",
        title="A file system is full",
        cause="No blocks or no inodes are left, or a quota is used up; Nix does not say on which"
        " file system. It need not be the one of the store: builds use build-dir"
        " (/nix/var/nix/builds since 2.30, /tmp before), downloads use /tmp and ~/.cache.",
        tell="Look at once: what a build wrote is gone when it has failed.",
        steps=(
            Step("Blocks.", "df -h /nix /nix/var/nix /tmp ~"),
            Step("Inodes.", "df -i /nix /nix/var/nix /tmp ~"),
            Step("What interrupted builds left.", "storewarden scan --dry-run"),
            Step(
                "Everything that nothing needs; not while a content-addressed build runs, whose"
                " output it would take as well.",
                "nix-collect-garbage",
            ),
        ),
        issues=("NixOS/nix#12597", "NixOS/nix#564", "NixOS/nixpkgs#74524", "NixOS/nix#16283"),
        versions="all",
        signs=signs(
            "…: no space left on device",
            "…: no space left on device (os error 28)…",
            "…[errno 28] no space left on device…",
            "…: disk quota exceeded",
            "…: database or disk is full…",
            "note: build failure may have been caused by lack of free disk space",
        ),
    ),
    Failure(
        name="daemon-unreachable",
        title="Nobody answers at the socket of nix-daemon",
        cause="The daemon does not run, or has not started yet; or this process cannot see its"
        " socket, as in a container or a sandbox.",
        tell="If the status commands say that it runs, look for the socket: ls -l"
        " /nix/var/nix/daemon-socket/socket.",
        steps=(
            Step("systemd: does it run?", "systemctl status nix-daemon.socket nix-daemon.service"),
            Step("systemd: start it.", "sudo systemctl start nix-daemon.socket"),
            Step("macOS: is it loaded?", "sudo launchctl list | grep nix"),
            Step(
                "macOS: start it.",
                "sudo launchctl kickstart -k system/org.nixos.nix-daemon",
            ),
        ),
        issues=(
            "DeterminateSystems/nix-installer#1156",
            "DeterminateSystems/nix-installer#419",
            "DeterminateSystems/zero-to-nix#416",
            "NixOS/nix#1980",
        ),
        versions="all; with Determinate Nix the job is called systems.determinate.nix-daemon",
        signs=signs(
            "cannot connect to socket at '…': connection refused",
            "cannot connect to daemon at '…': connection refused",
            "cannot connect to socket at '…': no such file or directory",
            "cannot connect to daemon at '…': no such file or directory",
        ),
    ),
    Failure(
        name="daemon-denied",
        title="This user may not talk to nix-daemon",
        cause="The directory of its socket is closed to this user. Debian opens it to the group"
        " nix-users alone.",
        steps=(
            Step("Who may?", "ls -ld /nix/var/nix/daemon-socket"),
            Step("Debian: join; then log in again.", 'sudo adduser "$USER" nix-users'),
        ),
        issues=("NixOS/nix#13340",),
        versions="seen with Debian's 2.8, 2.26 and 2.34",
        signs=signs(
            "cannot connect to socket at '…': permission denied",
            "cannot connect to daemon at '…': permission denied",
            "getting status of '…/daemon-socket…': permission denied",
        ),
    ),
    Failure(
        name="lock-denied",
        title="Nix may not open one of its lock files",
        cause="A Nix that is not the daemon works on the store itself, as a user who does not own"
        " it. The lock file is not stale, and removing it does not help.",
        tell="With a daemon: NIX_REMOTE is set to something else than daemon, or an earlier"
        " command as root left files. Without: the store belongs to another user.",
        steps=(
            Step("Which store is used?", 'nix store ping; echo "NIX_REMOTE=$NIX_REMOTE"'),
            Step("Whose is it?", "ls -ld /nix/store /nix/var/nix/db"),
            Step("If there is a daemon, use it.", "export NIX_REMOTE=daemon"),
        ),
        issues=("NixOS/nix#4356", "NixOS/nix#3451", "NixOS/nix#13340", "NixOS/nix#10257"),
        versions="all",
        signs=signs("opening lock file '…': permission denied"),
    ),
    Failure(
        name="store-read-only",
        title="The store is mounted read-only where Nix writes",
        cause="A container, a sandbox or a VM shows the store read-only, or the kernel turned it"
        " so after an error. On NixOS it is so on purpose, and the daemon alone may write.",
        tell="If dmesg tells of errors of the file system, the disk comes first.",
        steps=(
            Step("How is it mounted?", "findmnt --target /nix/store"),
            Step("Did the kernel do it?", "sudo dmesg --level=err"),
            Step("If there is a daemon, use it.", "export NIX_REMOTE=daemon"),
        ),
        issues=("microvm-nix/microvm.nix#15", "NixOS/nixpkgs#40355", "NixOS/nix#9417"),
        versions="all",
        signs=signs(
            "creating directory '/…': read-only file system",
            "opening lock file '/…': read-only file system",
            "changing modification time of '/…': read-only file system",
            "remounting /nix/store writable: …",
            "remounting '/nix/store' writable: …",
        ),
    ),
    Failure(
        name="macos-app-protected",
        title="macOS does not let Nix change an application",
        cause="App Management protects an .app once it has been run, from root too. A daemon that"
        " launchd started has no permission of its own; a terminal that has it can pass it on.",
        steps=(
            Step(
                "In System Settings, Privacy & Security, give App Management (or Full Disk Access)"
                " to the terminal, then collect there as root, without the daemon.",
                "sudo -H NIX_REMOTE=local nix-collect-garbage",
            ),
        ),
        issues=("NixOS/nix#6765", "NixOS/nix#15405", "nix-darwin/nix-darwin#1315"),
        versions="macOS 13 and newer; all versions of Nix",
        signs=signs(
            "chmod '….app': operation not permitted",
            "chmod '….app/…': operation not permitted",
            "cannot unlink '….app/…': operation not permitted",
        ),
    ),
    Failure(
        name="links-exist",
        title="Two processes optimised the store at the same moment",
        cause="With auto-optimise-store both made the same link; one of them failed. Nothing is"
        " damaged.",
        steps=(
            Step("Build again."),
            Step("To end it: auto-optimise-store = false, and now and then:", "nix store optimise"),
        ),
        issues=("NixOS/nix#7273", "nix-darwin/nix-darwin#484"),
        versions="reported for 2.8 to 2.13, most often on macOS; not known to be fixed",
        signs=signs("cannot link '…/.tmp-link…' to '…/.links/…': file exists"),
    ),
    Failure(
        name="links-maximum",
        title="A file has as many links as its file system allows",
        cause="Nix then keeps a copy of its own instead of one more link. This is not why a build"
        " failed.",
        steps=(Step("Nothing is to be done."),),
        issues=("NixOS/nix#1522",),
        versions="all",
        signs=signs("'…' has maximum number of links"),
    ),
)
