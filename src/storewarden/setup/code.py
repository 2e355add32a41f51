# SPDX-License-Identifier: MIT
"""The code that the services run: this program where it lies, or a copy that only root can change.

A service never runs what a user can change, so a program in somebody's virtual environment is
copied: the package, what it needs, and links to an interpreter of the system's, laid out as a
virtual environment, so that `python -I` finds all of it and nothing else. Units, property
lists, manual pages and completions come with the program: in a checkout they lie at its top, where
people look for them; in a wheel, inside the package.
"""

import hashlib
import importlib.util
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import storewarden
from storewarden import __version__
from storewarden.setup.files import File, Item, Link, SetupError, below, changeable

PACKAGE = os.path.dirname(os.path.realpath(storewarden.__file__))
_CHECKOUT = os.path.dirname(os.path.dirname(PACKAGE))
KINDS = ("systemd", "launchd", "man", "completions")
FOR_PEOPLE = {
    "man/storewarden.1": "share/man/man1/storewarden.1",
    "man/storewarden-config.5": "share/man/man5/storewarden-config.5",
    "man/storewarden-helper.8": "share/man/man8/storewarden-helper.8",
    "completions/storewarden.bash": "share/bash-completion/completions/storewarden",
    "completions/_storewarden": "share/zsh/site-functions/_storewarden",
    "completions/storewarden.fish": "share/fish/vendor_completions.d/storewarden.fish",
}
"""What people have of it beside the command, and where they look for it below /usr or the like."""
CODE = "/opt/storewarden"
GC_ROOTS = "/nix/var/nix/gcroots/storewarden"
NEEDED = ("prometheus_client", "psutil", "sdnotify", "structlog", "watchdog")
"""What the watcher imports beside the standard library; the helper imports none of it."""
_ONLY_MACOS = "_watchdog_fsevents"
_PROFILES = ("storewarden", "default", "per-user/root/profile")
"""Of Nix; the last is root's own with Determinate Nix."""
_INSTALL = {
    "linux": " (on Debian: apt-get install python3)",
    "darwin": ": sudo /nix/var/nix/profiles/default/bin/nix --extra-experimental-features"
    f" 'nix-command flakes' profile install --profile /nix/var/nix/profiles/{_PROFILES[0]}"
    " nixpkgs#python3",
}
_HIDDEN = ("/home/", "/root/", "/run/user/", "/Users/", "/private/var/root/")
_SECONDS = 60
PATH = "/usr/bin:/bin:/usr/sbin:/sbin:/run/current-system/sw/bin"
"""Where the system's own programs are looked for, NixOS's last: where only root's are."""

_MODULES = f"storewarden.cli, storewarden.helper.__main__, {', '.join(NEEDED)}"
IMPORTS = f"import {_MODULES}; storewarden.cli.parser()"
"""Imports all that the services may ever import."""
LOOK = f"""
import json, sys
{IMPORTS}
files = [getattr(module, "__file__", None) for module in [*sys.modules.values()]]
places = {{sys.executable, *sys.path, *filter(None, files)}}
print(json.dumps([sys.version_info[:3], sorted(places)]))
"""
"""Prints the version of the interpreter and all it runs from, once everything is imported."""
_VERSION = "import json, sys; print(json.dumps([sys.version_info[:3], [sys.executable]]))"


@dataclass(frozen=True, slots=True)
class Program:
    """What the services run."""

    python: str
    """Started with -I, this interpreter finds storewarden and what it needs."""
    items: tuple[Item, ...]
    """What must be written for that."""
    why: str
    """In plain words."""

    @property
    def copied(self) -> str | None:
        """The directory that it is copied to."""
        copy = self.python.startswith(f"{CODE}/")
        return os.path.dirname(os.path.dirname(self.python)) if copy else None


def program() -> Program:
    """Where it can stay, it stays; a copy runs on for as long as it is the same."""
    if PACKAGE.startswith(f"{CODE}/"):
        return _copy("it is this copy")
    looked = ask_python(sys.executable, LOOK)
    if isinstance(looked, str):
        return _copy(f"an isolated {sys.executable} cannot run it: {looked}")
    _, places = looked
    if f"{PACKAGE}/cli/__init__.py" not in map(os.path.realpath, places):
        return _copy(f"an isolated {sys.executable} runs another storewarden than this")
    if unfit := _unfit([*places, *below(PACKAGE)]):
        return _copy(unfit)
    return Program(sys.executable, _gc_roots(places), "only root can change it where it is")


def _copy(why: str) -> Program:
    python, version = _interpreter()
    settings = f"home = {os.path.dirname(python)}\ninclude-system-site-packages = false\n"
    library = f"lib/python{version[0]}.{version[1]}/site-packages"
    contents = {f"{library}/{name}": content for name, content in _modules()}
    contents["pyvenv.cfg"] = f"{settings}version = {'.'.join(map(str, version))}\n".encode()
    total = hashlib.sha256(python.encode())
    for name, content in sorted(contents.items()):
        total.update(f"\0{name}\0{hashlib.sha256(content).hexdigest()}".encode())
    # Another content is another directory: what runs is never changed below its feet.
    top = f"{CODE}/{__version__}-{total.hexdigest()[:12]}"
    files: list[Item] = [
        File(f"{top}/{name}", content) for name, content in sorted(contents.items())
    ]
    items = (*files, Link(f"{top}/bin/python", python), *_gc_roots([python]))
    return Program(f"{top}/bin/python", items, why)


def _modules() -> Iterator[tuple[str, bytes]]:
    """Every file of the package and of what it needs, by its name below site-packages."""
    yield from ((f"storewarden/{name}", content) for name, content in all_shipped().items())
    needed = NEEDED + ((_ONLY_MACOS,) if sys.platform == "darwin" else ())
    for module in ("storewarden", *needed):
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise SetupError(f"{module} is not installed beside storewarden; install it anew")
        package = os.path.dirname(spec.origin) if spec.submodule_search_locations else spec.origin
        above = os.path.dirname(package)
        for place in below(package):
            shipped = place.startswith(tuple(f"{PACKAGE}/{kind}" for kind in KINDS))
            if os.path.isfile(place) and not shipped:
                with open(place, "rb") as file:
                    yield place.removeprefix(f"{above}/"), file.read()


def _interpreter() -> tuple[str, Sequence[int]]:
    """One that only root can change and that is new enough; of this version, if there is one."""
    base: str = getattr(sys, "_base_executable", "") or sys.executable
    for candidate in candidates(base, sys.platform):
        python = os.path.realpath(candidate)
        if not os.access(python, os.X_OK) or _unfit([python]):
            continue
        looked = ask_python(python, _VERSION)
        if not isinstance(looked, str) and tuple(looked[0]) >= (3, 11):
            return python, looked[0]
    raise SetupError(
        "a service needs a Python 3.11 or newer that only root can change, and there is none in the"
        f" system's places; install one{_INSTALL.get(sys.platform, '')}"
    )


def candidates(base: str, system: str) -> list[str]:
    """Interpreters to look at, the best first: `base`, then those of the system of that name.

    Of macOS nothing in /usr/bin is run: its python3 asks whether to install Apple's tools.
    """
    own = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    places = ("/usr/local/bin",) if system == "darwin" else ("/usr/bin", "/usr/local/bin")
    of_system = [f"{place}/{name}" for name in (own, "python3") for place in places]
    of_nix = [f"/nix/var/nix/profiles/{name}/bin/python3" for name in _PROFILES]
    found = [base, *of_system, *of_nix]
    apples = ("/usr/bin/", "/Library/Developer/") if system == "darwin" else ()
    return [one for one in found if not one.startswith(apples)]


def _unfit(places: Sequence[str]) -> str | None:
    """Why a service cannot run what is there, in plain words, or None."""
    if bad := changeable(places):
        return f"others than root can change {bad}"
    real = (os.path.realpath(place) for place in places)
    hidden = next((place for place in real if place.startswith(_HIDDEN)), None)
    return f"the services do not see {hidden}" if hidden else None


def ask_python(python: str, what: str) -> tuple[Sequence[int], list[str]] | str:
    """What that program prints in an isolated interpreter, or why it does not."""
    try:
        done = execute([python, "-I", "-B", "-c", what])
        version, places = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError) as cause:
        return str(cause)
    except ValueError:
        return (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return version, places


def execute(
    words: Sequence[str], seconds: int = _SECONDS, user: pwd.struct_passwd | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run that, as that user, with nothing of the caller's: no input, no environment.

    `OSError` or `subprocess.SubprocessError` if it does not start, or not end in time.
    """
    return subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=seconds,
        check=False,
        cwd="/",
        env={"PATH": PATH, "LC_ALL": "C"},
        user=user and user.pw_uid,
        group=user and user.pw_gid,
        extra_groups=None if user is None else [],
    )


def _gc_roots(places: Sequence[str]) -> tuple[Link, ...]:
    """Links that keep Nix's collector from what of it lies in the store."""
    real = (os.path.realpath(place) for place in places)
    paths = {"/".join(place.split("/")[:4]) for place in real if place.startswith("/nix/store/")}
    return tuple(Link(f"{GC_ROOTS}/{os.path.basename(path)}", path) for path in sorted(paths))


def shipped(name: str) -> bytes:
    """The content of `systemd/...`, `launchd/...`, `man/...` or `completions/...`."""
    with open(_place(name), "rb") as file:
        return file.read()


def all_shipped() -> dict[str, bytes]:
    """Every such file by its name."""
    names = []
    for kind in KINDS:
        top = _place(kind)
        for place, _, files in os.walk(top):
            names += [
                f"{kind}{place.removeprefix(top)}/{name}"
                for name in files
                if not name.endswith((".py", ".pyc"))  # what writes the completions
            ]
    return {name: shipped(name) for name in sorted(names)}


def _place(name: str) -> str:
    for top in (PACKAGE, _CHECKOUT):
        if os.path.exists(f"{top}/{name}"):
            return f"{top}/{name}"
    raise SetupError(f"{name} did not come with this program; install it anew")
