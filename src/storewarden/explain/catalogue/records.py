# SPDX-License-Identifier: MIT
"""Failures of what Nix has on record: validity, contents, the database."""

from storewarden.copyable import REPAIRING, repair_path
from storewarden.explain.failures import Failure, Step, signs

_VERIFY = Step(
    "See what else is damaged. It also forgets each path that is not there, unless one that is"
    " refers to it: if some are missing, repair those first.",
    "sudo nix-store --verify --check-contents",
)
_REPAIR_ALL = Step(
    "Fetch or build again what is damaged. It too forgets what is not there.",
    f"sudo nix-store --verify --check-contents --repair {REPAIRING}",
)
_BACK_UP = Step(
    "Keep a copy, with the daemon stopped.", "sudo cp -a /nix/var/nix/db /nix/var/nix/db.before"
)

FAILURES = (
    Failure(
        name="path-not-valid",
        title="Nix needs a path that is not registered",
        cause="It may have been collected while this ran; never have been finished; or its"
        " registration was lost.",
        tell="Run the command again: if it works now, a collector ran beside it. If not,"
        " storewarden explain says whether anything lies there, and whose it is.",
        steps=(
            Step("See what Nix, the database and the disk say of it.", "storewarden explain PATHS"),
            Step("Fetch or build it.", "nix-store --realise PATHS"),
        ),
        issues=("NixOS/nix#9052", "NixOS/nix#6757", "NixOS/nix#15469", "NixOS/nix#4436"),
        versions="all; some races with the collector are fixed in 2.35",
        signs=signs("path '/…' is not valid", "path '/…' does not exist in the store"),
        needs_path=True,
    ),
    Failure(
        name="outputs-invalid",
        title="A build ended, and its outputs are not registered all the same",
        cause="Nix asked whether the outputs are valid and was told no. The message does not say"
        " which outputs, nor why.",
        tell="Run the command again: if it works now, a collector ran beside it.",
        steps=(
            Step("See what lies about unregistered.", "storewarden scan --dry-run"),
            Step("Have Nix forget what is registered and not there.", "sudo nix-store --verify"),
        ),
        issues=("NixOS/nix#9782",),
        versions="all",
        signs=signs(
            "some outputs are unexpectedly invalid",
            "some outputs of '…' are unexpectedly invalid",
        ),
    ),
    Failure(
        name="check-needs-build",
        title="What is to be built a second time was not built a first time",
        cause="--check and --rebuild compare with outputs that are valid; these are not.",
        steps=(Step("Build without --check or --rebuild first."),),
        issues=("NixOS/nix#8188",),
        versions="all",
        signs=signs("some outputs of '…' are not valid, so checking is not possible"),
    ),
    Failure(
        name="collected-input",
        title="An output that a derivation needs is gone",
        cause="A collector ran at the same time and took the output of a derivation that was"
        " still needed.",
        steps=(
            Step("Run it again when no collector runs."),
            Step(
                "If it stays, have Nix forget what is registered and not there.",
                "sudo nix-store --verify",
            ),
        ),
        issues=("NixOS/nix#6757",),
        versions="reported for 2.8; not known to be fixed",
        signs=signs("derivation '…' requires non-existent output '…' from input derivation '…'"),
    ),
    Failure(
        name="contents-differ",
        title="The contents of a path are not those that are registered",
        cause="Files changed after they were registered: by a bad disk or a power cut, or by a"
        " builder that outlived its build. With copies, either side may be the damaged one.",
        tell="nix-store --verify-path on each of both machines says which.",
        steps=(
            Step("Compare contents and record.", "nix-store --verify-path PATHS"),
            Step("Fetch or build it again.", repair_path("PATHS")),
        ),
        issues=("NixOS/nix#10415", "NixOS/nix#7617", "NixOS/nix#1281", "NixOS/hydra#816"),
        versions="all",
        signs=signs(
            "hash mismatch importing path '…'…",
            "ca hash mismatch importing path '…'…",
            "path '…' was modified! expected hash '…', got '…'",
            "path '…' is corrupted or missing!",
        ),
    ),
    Failure(
        name="links-corrupted",
        title="A file in .links has not the contents that its name promises",
        cause="A file was damaged, and auto-optimise-store spreads it: every new file of the same"
        " contents becomes a link to the damaged one.",
        steps=(_VERIFY, _REPAIR_ALL),
        issues=("NixOS/nix#1281", "NixOS/nix#3230", "NixOS/nix#5898"),
        versions="all; repaired together with the paths since 2.4",
        signs=signs(
            "removing corrupted link '…'",
            "link '…' was modified! expected hash '…', got '…'",
        ),
    ),
    Failure(
        name="derivation-empty",
        title="A derivation's file cannot be read as one",
        cause="It is empty or cut off: most often the machine lost power, or the disk was full,"
        " before it was written. Others are likely to be damaged too.",
        tell="An empty file proves it. If it is not empty, a newer Nix may have written it.",
        steps=(Step("Is it empty?", "ls -l PATHS"), _VERIFY, _REPAIR_ALL),
        issues=("NixOS/nix#11148", "NixOS/nix#3498", "NixOS/nix#15298", "NixOS/nix#1218"),
        versions="all; sync-before-registering = true guards against it",
        signs=signs(
            "error parsing derivation '…': …expected string 'd…",
            "expected string 'd', got ''",
        ),
    ),
    Failure(
        name="database-malformed",
        title="Nix's database is damaged",
        cause="SQLite cannot read a page of it: bad disk, full disk, a file system that does not"
        " keep its promises.",
        steps=(
            _BACK_UP,
            Step(
                "What is wrong?", "sudo sqlite3 /nix/var/nix/db/db.sqlite 'pragma integrity_check'"
            ),
            Step(
                "If only an index is: make it anew.",
                "sudo sqlite3 /nix/var/nix/db/db.sqlite reindex",
            ),
        ),
        issues=("NixOS/nix#1353", "NixOS/nix#7988", "NixOS/nix#11990"),
        versions="all",
        signs=signs(
            "…: database disk image is malformed",
            "…database disk image is malformed…/db.sqlite')",
        ),
    ),
    Failure(
        name="cache-malformed",
        title="A cache of Nix is damaged; the store is not",
        cause="The database named in the line only remembers answers of binary caches or of"
        " evaluations. Nix makes it anew.",
        steps=(
            Step("Remove the file named in the line, for the daemon that of root."),
            Step("Or all of them.", "rm ~/.cache/nix/*.sqlite*"),
        ),
        issues=("NixOS/nix#8647",),
        versions="all",
        signs=signs("…database disk image is malformed…/.cache/nix/…"),
    ),
    Failure(
        name="database-unreadable",
        title="Nix's database cannot be opened or read",
        cause="The disk reports errors, or there is no room for SQLite's temporary files: they"
        " may go to another file system, such as /var/tmp.",
        steps=(
            Step("Is there room everywhere?", "df -h /nix /var/tmp /tmp"),
            Step("Does the disk report errors?", "sudo dmesg --level=err"),
        ),
        issues=("NixOS/nix#5454", "NixOS/nix#11500", "NixOS/nixpkgs#47199"),
        versions="all",
        signs=signs(
            "…disk i/o error (in '…db.sqlite')",
            "…unable to open database file…db.sqlite')",
        ),
    ),
)
