# SPDX-License-Identifier: MIT
"""The file system of a Mac that does not exist: /etc, /var and /tmp are links into /private.

It is made once, and copied for each machine that boots from it. What a Mac has of its own is here;
what Linux must have so that anything runs at all is below /opt/linux, and in /usr/lib.
"""

import os
import shutil
import stat
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

import psutil

from real import rig
from real.furniture import CHECKOUT
from storewarden.setup.code import NEEDED

BUILD_GROUP = 350
BUILD_USERS = {350 + number: f"_nixbld{number}" for number in range(1, 9)}
"""As the installers make them since macOS 15 (scripts/install-darwin-multi-user.sh)."""
PERSON = "you"
UID = 501
HOME = f"/Users/{PERSON}"
OWN_CHECKOUT = f"{HOME}/storewarden"
PROFILE = "/nix/var/nix/profiles/default"
STANDIN = "private/var/db/standin"
_SYSTEM = f"{os.path.dirname(os.path.abspath(__file__))}/system"
_LIBRARY = "/opt/linux/libc.so"
_SHOWN = ("lib", "lib32", "lib64", "libexec", "share", "local/lib")
"""Of the /usr of Linux."""
_NIX = "nix nix-build nix-collect-garbage nix-daemon nix-env nix-instantiate nix-store"
_NOT_THERE = ("python", "pydoc", "pip", "systemctl", "systemd", "journalctl", "nix", "storewarden")
"""Beginnings of the names of programs that a new Mac has not."""
_DIRECTORIES = """
Library/LaunchAgents Library/LaunchDaemons System bin dev nix proc sbin
opt/linux/bin opt/linux/proc opt/linux/site-packages opt/linux/standin
private/etc/nix private/etc/newsyslog.d private/tmp private/var/db/standin/faults
private/var/empty private/var/log private/var/root private/var/run private/var/tmp
usr/bin usr/local/bin usr/sbin
"""
ACCOUNTS = {
    "root": (0, 0, "/var/root"),
    PERSON: (UID, 20, HOME),
    "other": (502, 20, "/Users/other"),
}
"""Who can be at a terminal: uid, gid, home."""
_PASSWD = f"""\
root:x:0:0:System Administrator:/var/root:/bin/sh
daemon:x:1:1:System Services:/var/root:/usr/bin/false
{PERSON}:x:{UID}:20:You:{HOME}:/bin/sh
other:x:502:20:Somebody Else:/Users/other:/bin/sh
nobody:x:4294967294:4294967294:Unprivileged User:/var/empty:/usr/bin/false
"""
_GROUP = f"""\
wheel:x:0:root
daemon:x:1:root
staff:x:20:root
admin:x:80:root,{PERSON}
nobody:x:4294967294:
nixbld:x:{BUILD_GROUP}:{",".join(BUILD_USERS.values())}
"""
_CONF = f"""\
build-hook = {PROFILE}/libexec/nix/build-remote
build-users-group = nixbld
experimental-features = nix-command flakes ca-derivations
sandbox = false
substituters =
trusted-users = root {PERSON}
"""
_NO_PROXIES = """\
# SPDX-License-Identifier: MIT
_get_proxies = _get_proxy_settings = dict
"""
"""What urllib asks on a Mac."""
_PROGRAMS = "gcc chroot"


@dataclass(frozen=True, slots=True)
class Root:
    """A made one."""

    base: str

    @property
    def top(self) -> str:
        """Its /, without what is mounted."""
        return f"{self.base}/root"

    @property
    def volume(self) -> str:
        """What is mounted on its /nix lies in this directory, as `nix`."""
        return f"{self.base}/volume"


def missing() -> str | None:
    """Why no Mac can be stood in for here, in plain words, or None."""
    if reason := rig.missing():
        return reason
    for program in _PROGRAMS.split():
        if shutil.which(program) is None:
            return f"there is no {program} (on Debian: apt-get install gcc libc6-dev coreutils)"
    if not os.path.islink("/bin"):
        return "programs and libraries are expected in /usr alone"
    if not _interpreter().startswith("/usr/"):
        return f"the interpreter {_interpreter()} is not in /usr"
    return None


def make(base: str) -> Root:
    """Make it in that directory, which is to be closed to nobody."""
    root = Root(base)
    os.makedirs(root.top)
    homes = (f"{HOME[1:]}/Library/Logs", f"{HOME[1:]}/Library/Application Support", "Users/other")
    for place in (*_DIRECTORIES.split(), *homes):
        os.makedirs(f"{root.top}/{place}")
    os.makedirs(f"{root.volume}/nix")
    for place in _SHOWN:
        if os.path.isdir(f"/usr/{place}"):
            os.makedirs(f"{root.top}/usr/{place}")
    for name in ("etc", "tmp", "var"):
        os.symlink(f"private/{name}", f"{root.top}/{name}")
    for name in ("lib", "lib32", "lib64"):
        os.symlink(f"usr/{name}", f"{root.top}/{name}")
    _modes(root.top)
    _accounts(root.top)
    _programs(root.top)
    _compiled(root.top)
    _python(f"{root.top}/opt/linux/python")
    _nix(root)
    _checkout(f"{root.top}{OWN_CHECKOUT}")
    compiling = [sys.executable, "-m", "compileall", "-q", "-s", root.top, "-p", "/"]
    _run(*compiling, f"{root.top}{OWN_CHECKOUT}/src", f"{root.top}{OWN_CHECKOUT}/.venv")
    _run("chown", "-R", f"{UID}:20", f"{root.top}{HOME}")
    for made in (".program", ".ready"):
        _write(f"{root.top}{OWN_CHECKOUT}/.venv/{made}", "")
    # From now on: before, it would be looked for by what runs to make this.
    _write(f"{root.top}/private/etc/ld.so.preload", f"{_LIBRARY}\n")
    return root


def copied(root: Root, base: str) -> Root:
    """Another of the same."""
    _run("cp", "-a", root.base, base)
    return Root(base)


def mounts(root: Root) -> str:
    """The shell commands that mount what belongs into it, but for the volume of Nix."""
    shown = [
        (f"/usr/{place}", f"usr/{place}") for place in _SHOWN if os.path.isdir(f"/usr/{place}")
    ]
    shown += [("/usr/bin", "opt/linux/bin"), (_site_packages(), "opt/linux/site-packages")]
    live = [("/dev", "dev"), ("/proc", "proc"), ("/proc", "opt/linux/proc")]
    binds = [("--bind -o ro", *one) for one in shown] + [("--rbind", *one) for one in live]
    return "\n".join(f"mount {how} '{what}' '{root.top}/{where}'" for how, what, where in binds)


def _modes(top: str) -> None:
    for place in ("private/tmp", "private/var/tmp"):
        os.chmod(f"{top}/{place}", 0o1777)  # noqa: S103 - as everywhere
    # Seen on real Macs: drwxrwxr-x root:daemon.
    os.chown(f"{top}/private/var/run", 0, 1)
    os.chmod(f"{top}/private/var/run", 0o775)  # noqa: S103 - see above
    os.chmod(f"{top}/private/var/root", 0o750)  # noqa: S103 - as there


def _accounts(top: str) -> None:
    users = [
        f"{name}:x:{uid}:{BUILD_GROUP}:Nix build user:/var/empty:/usr/bin/false\n"
        for uid, name in BUILD_USERS.items()
    ]
    _write(f"{top}/private/etc/passwd", _PASSWD + "".join(users))
    _write(f"{top}/private/etc/group", _GROUP)
    _write(f"{top}/private/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
    _write(f"{top}/private/etc/nix/nix.conf", _CONF)
    _write(f"{top}/private/etc/shells", "/bin/sh\n")
    _write(f"{top}/private/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")


def _programs(top: str) -> None:
    for name in os.listdir("/usr/bin"):
        if not name.startswith(_NOT_THERE):
            # Many are links by way of /etc/alternatives, which is not there.
            target = os.path.realpath(f"/usr/bin/{name}").replace("/usr/bin/", "/opt/linux/bin/")
            os.symlink(target, f"{top}/usr/bin/{name}")
    shell = os.path.basename(os.path.realpath("/bin/sh"))
    os.symlink(f"/opt/linux/bin/{shell}", f"{top}/bin/sh")
    for name in ("bash", "cat", "chmod", "cp", "echo", "ls", "mkdir", "mv", "ps", "rm", "sleep"):
        os.symlink(f"/usr/bin/{name}", f"{top}/bin/{name}")
    places = {"mount": "sbin", "wait4path": "bin", "python3": "usr/bin", "sw_vers": "usr/bin"}
    for name, place in places.items():
        _install(f"{_SYSTEM}/{name}", f"{top}/{place}/{name}")
    _install(f"{_SYSTEM}/launchd.py", f"{top}{LAUNCHD[-1]}")
    for name, place in {"launchctl": "bin", "plutil": "usr/bin"}.items():
        script = f"#!{LAUNCHD[0]} {LAUNCHD[1]}\n" + _read(f"{_SYSTEM}/{name}.py")
        _write(f"{top}/{place}/{name}", script, 0o755)
    daemon = f"{top}/Library/LaunchDaemons/org.nixos.nix-daemon.plist"
    _install(f"{_SYSTEM}/nix-daemon.plist", daemon, 0o644)


def _compiled(top: str) -> None:
    library = f"{top}{_LIBRARY}"
    building = ["gcc", "-shared", "-fPIC", "-O1", f"-Wl,-soname,{_LIBRARY}", "-o", library]
    _run(*building, f"{_SYSTEM}/libc.c", "-ldl")
    for name, mode in (("chflags", 0o755), ("sudo", 0o4755)):
        with suppress(FileNotFoundError):
            os.unlink(f"{top}/usr/bin/{name}")
        _run("gcc", "-O1", "-o", f"{top}/usr/bin/{name}", f"{_SYSTEM}/{name}.c", library)
        os.chmod(f"{top}/usr/bin/{name}", mode)


LAUNCHD = ("/opt/linux/python/bin/python3", "-IS", "/opt/linux/standin/launchd.py")
"""The first process. Without `site` this Python knows that it is on Linux."""


def _python(place: str) -> None:
    """This interpreter as a tree of its own, which is at home wherever it lies."""
    own = _interpreter()
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = os.path.dirname(os.__file__)
    os.makedirs(f"{place}/bin")
    shutil.copy2(own, f"{place}/bin/{version}")
    os.symlink(version, f"{place}/bin/python3")
    for directory in ("", "/__pycache__"):
        os.makedirs(f"{place}/lib/{version}{directory}", exist_ok=True)
        for name in os.listdir(f"{library}{directory}"):
            others = ("sitecustomize.", "site-packages", "dist-packages", "__pycache__")
            if not name.startswith(others):
                target = f"{place}/lib/{version}{directory}/{name}"
                os.symlink(f"{library}{directory}/{name}", target)
    shutil.copy2(f"{_SYSTEM}/sitecustomize.py", f"{place}/lib/{version}/sitecustomize.py")
    _write(f"{place}/lib/{version}/_scproxy.py", _NO_PROXIES)
    # Not by their times of change, which Nix makes 1.
    compiled = [f"{place}/lib/{version}/{name}.py" for name in ("sitecustomize", "_scproxy")]
    compiling = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash"]
    _run(*compiling, *compiled)


def _nix(root: Root) -> None:
    """An empty store but for a profile with Nix and a Python: by way of it people have both."""
    profile = f"{root.base}/user-environment"
    _run("cp", "-a", f"{root.top}/opt/linux/python", profile)
    os.makedirs(f"{profile}/libexec/nix")
    os.symlink("/opt/linux/bin/nix", f"{profile}/libexec/nix/build-remote")
    for name in _NIX.split():
        os.symlink(
            f"/opt/linux/bin/{os.path.basename(os.path.realpath(f'/usr/bin/{name}'))}",
            f"{profile}/bin/{name}",
        )
    script = f"""
mount --bind '{root.volume}/nix' /nix
mount --bind '{root.top}/private/etc/passwd' /etc/passwd
mount --bind '{root.top}/private/etc/group' /etc/group
mount --bind '{root.top}/private/etc/nix' /etc/nix
nix-store --init
nix-store --add '{profile}'
"""
    done = _run("unshare", "--mount", "sh", "-ec", script)
    shutil.rmtree(profile)
    profiles = f"{root.volume}{PROFILE}"
    os.makedirs(os.path.dirname(profiles), exist_ok=True)
    os.symlink("default-1-link", profiles)
    os.symlink(done.strip(), f"{profiles}-1-link")


def take_over_checkout(place: str) -> None:
    """Have in it what is in ours, as far as it is anybody's but this machine's."""
    names = [name for name in os.listdir(CHECKOUT) if not name.startswith(".")]
    skipped = shutil.ignore_patterns("__pycache__")
    for name in names:
        source, target = f"{CHECKOUT}/{name}", f"{place}/{name}"
        if os.path.isdir(source):
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, symlinks=True, ignore=skipped)
        else:
            shutil.copy2(source, target)
        _run("chown", "-R", f"{UID}:20", target)


def _checkout(place: str) -> None:
    """What `git clone` and `make .venv/.ready` give, without the network."""
    os.makedirs(place)
    take_over_checkout(place)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = f"{place}/.venv/lib/{version}/site-packages"
    os.makedirs(library)
    os.makedirs(f"{place}/.venv/bin")
    own = _site_packages()
    for name in os.listdir(own):
        if name.endswith((".pth", "__pycache__")) or name.startswith("storewarden"):
            continue
        # People have them all, but only these are copied by setup; the others are much larger.
        if name.partition("-")[0].removesuffix(".py") in NEEDED:
            _run("cp", "-a", f"{own}/{name}", f"{library}/{name}")
        else:
            os.symlink(f"/opt/linux/site-packages/{name}", f"{library}/{name}")
    _write(f"{library}/storewarden.pth", f"{OWN_CHECKOUT}/src\n")
    # Part of watchdog on a Mac, where it is compiled; nothing of storewarden's calls it.
    _write(f"{library}/_watchdog_fsevents.py", "")
    _write(
        f"{place}/.venv/pyvenv.cfg", f"home = {PROFILE}/bin\ninclude-system-site-packages = false\n"
    )
    os.symlink(f"{PROFILE}/bin/{version}", f"{place}/.venv/bin/python")
    script = "import sys\nfrom storewarden.cli import main\nsys.exit(main())\n"
    starter = f"#!{OWN_CHECKOUT}/.venv/bin/python\n{script}"
    _write(f"{place}/.venv/bin/storewarden", starter, 0o755)


def _site_packages() -> str:
    return os.path.dirname(os.path.dirname(os.path.realpath(psutil.__file__)))


def _interpreter() -> str:
    base: str = getattr(sys, "_base_executable", "") or sys.executable
    return os.path.realpath(base)


def _install(source: str, target: str, mode: int = 0o755) -> None:
    if os.path.lexists(target):
        os.unlink(target)
    shutil.copyfile(source, target)
    os.chmod(target, mode)


def _write(path: str, text: str, mode: int = 0o644) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, stat.S_IMODE(mode))


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{words[0]} failed: {done.stderr}")
    return done.stdout
