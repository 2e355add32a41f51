# SPDX-License-Identifier: MIT
"""Failures at the place where an output is to be: what an earlier build left is in the way."""

from storewarden.explain.failures import About, Failure, Step, signs

_EXPLAIN = Step("See whose path it is and whether anything claims it.", "storewarden explain PATHS")
_LOOK = Step("See what else lies about; this changes nothing.", "storewarden scan --dry-run")
_REMOVE = Step("If it is debris, remove what is proved dead.", "sudo storewarden scan --yes")
_AGAIN = Step("Then build again.")

FAILURES = (
    Failure(
        name="output-denied",
        title="A builder was refused access to a path in the store",
        cause="If that path is the builder's own output, an interrupted or failed build left it"
        " half-written: it belongs to another build user, and nothing registers it. Nix removes"
        " such a path before it builds again only where it knows the path beforehand; for a"
        " floating content-addressed output built without a sandbox it does not, and every next"
        " build fails in this way.",
        tell="storewarden explain says which it is. If nothing lies at that path, or it is valid,"
        " this is a fault of the builder: it writes into another package, or through a link into"
        " one.",
        steps=(_EXPLAIN, _LOOK, _REMOVE, _AGAIN),
        issues=(
            "NixOS/nix#13703",
            "DeterminateSystems/nix-src#487",
            "NixOS/nix#14107",
            "indexable-inc/index#1322",
        ),
        versions="seen with Nix 2.8, 2.26 and 2.34, sandbox = false (the default of macOS)",
        signs=signs(
            "…can't create /…: permission denied",
            "…cannot create …/…: permission denied",
            "…failed to create …/…: permission denied",
            "…cannot touch …/…: permission denied",
        ),
        own_signs=signs(
            "…: permission denied",
            "…: permission denied …",
            "permissionerror: [errno 13] permission denied: '…'",
        ),
        about=About.LAST,
        needs_path=True,
    ),
    Failure(
        name="output-not-empty",
        title="Nix cannot move an output to its place, because a directory lies there already",
        cause="What lies there is not registered, or Nix would not have built it: an interrupted"
        " build left it.",
        steps=(_EXPLAIN, _LOOK, _REMOVE, _AGAIN),
        issues=("NixOS/nix#4816", "NixOS/nix#4858", "NixOS/nix#4928"),
        versions="reported for content-addressed derivations, since 2.4",
        signs=signs(
            "renaming '…' to '…': directory not empty",
            "filesystem error: cannot rename: directory not empty […",
        ),
        about=About.LAST,
        needs_path=True,
    ),
    Failure(
        name="output-exists",
        title="A builder finds a file in its own output already",
        cause="Either an interrupted build left the file, and the build user that made it builds"
        " again; or the builder makes the file twice.",
        tell="If storewarden explain, while nothing builds, finds an unregistered path there, it"
        " was left. If nothing lies there, the builder makes it twice. A builder that does not"
        " mind such a file has it registered with its output: delete that output then, and build"
        " it again.",
        steps=(_EXPLAIN, _LOOK, _REMOVE, _AGAIN),
        issues=("NixOS/nix#13703", "NixOS/nixpkgs#10098"),
        versions="seen with Nix 2.8, 2.26 and 2.34, sandbox = false",
        own_signs=signs("…: file exists"),
        about=About.LAST,
        needs_path=True,
    ),
    Failure(
        name="output-tmp-exists",
        title="Nix's own temporary name beside an output is taken",
        cause="Before 2.35 Nix rewrote a content-addressed output under the name <output>.tmp,"
        " and failed if anything had that name: a file of the builder, or one that a killed Nix"
        " had left.",
        tell="storewarden scan shows it as temporary if it was left; it does not remove it.",
        steps=(
            _LOOK,
            Step("If it was left, and nothing builds now: remove it.", "nix-store --delete PATHS"),
            Step("Otherwise update Nix to 2.35 or newer."),
        ),
        issues=("NixOS/nix#15839", "NixOS/nix#15709"),
        versions="up to 2.34; fixed in 2.35",
        signs=signs(
            "path '….tmp' already exists",
            "creating file '….tmp': file exists",
        ),
        about=About.LAST,
        needs_path=True,
    ),
    Failure(
        name="output-ownership",
        title="Nix rejects an output because of its owner or its permissions",
        cause="Something in the output is writable by others, or belongs to another user than the"
        " one that built it.",
        tell="Compare the reports: a store on NFS that maps owners; default ACLs (getfacl /tmp"
        " /nix/store); a Nix without build users and a umask of 0002; a builder that unpacks"
        " files with their permissions.",
        steps=(
            Step("See who owns what there.", "ls -ld PATHS"),
            Step("If the builder did it, let it run: chmod -R go-w $out"),
        ),
        issues=(
            "NixOS/nix#7170",
            "NixOS/nix#13292",
            "NixOS/nix#6680",
            "NixOS/nixpkgs#82357",
            "cachix/devenv#2596",
        ),
        versions="all",
        signs=signs("suspicious ownership or permission on '…'…; rejecting this build output"),
        about=About.LAST,
        needs_path=True,
    ),
    Failure(
        name="output-cross-device",
        title="Nix cannot move an output from one place of the store to another",
        cause="The file system refuses to rename a directory. Overlay file systems do so for"
        " directories of a lower layer: containers, and the installer's system.",
        steps=(
            Step("See what the store is on.", "findmnt --target /nix/store"),
            Step("Put /nix/store on a volume of its own, or update Nix."),
        ),
        issues=("NixOS/nix#6262", "NixOS/nix#8395", "firedancer-io/firedancer#217"),
        versions="reported for 2.7 to 2.15",
        signs=signs(
            "renaming '…' to '…': invalid cross-device link",
            "filesystem error: cannot rename: invalid cross-device link […",
        ),
        about=About.LAST,
        needs_path=True,
    ),
)
