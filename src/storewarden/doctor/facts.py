# SPDX-License-Identifier: MIT
"""What is known of a machine. Every fact is its value, or `Unknown` with the reason. Pure."""

from dataclasses import dataclass
from enum import Enum

from storewarden import host
from storewarden.auditlog import Verification
from storewarden.config import Config, Mode
from storewarden.daemon.status import ServiceStatus
from storewarden.doctor.versions import NixVersion
from storewarden.store.fact import Fact, Known


@dataclass(frozen=True, slots=True)
class Unknown:
    """It could not be told, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """What runs below everything."""

    darwin: bool
    emulated: bool = False
    """gVisor, which calls itself Linux."""
    systemd: bool = False
    """Whether systemd manages the services here."""
    namespaces: Known = Known.UNKNOWN
    """Whether root may make the namespaces that Nix's sandbox is made of."""
    declared: str = ""
    """NixOS or nix-darwin, where such a system makes this machine's files; else empty."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Nix's settings, as `nix show-config` tells them; None for what it does not tell."""

    sandbox: str | None = None
    """`true`, `false` or `relaxed`."""
    sandbox_fallback: bool | None = None
    """Whether it builds without a sandbox where none can be made (2.4 to 2.35: by default)."""
    features: frozenset[str] | None = None
    """Experimental features that are on."""
    build_group: str | None = None
    """`build-users-group`; empty where builds run as whoever runs Nix."""
    allocates: bool | None = None
    """`auto-allocate-uids`; None also before 2.12, which does not have it."""
    first_allocated: int | None = None
    """`start-id`."""
    allocated: int | None = None
    """`id-count`."""

    @property
    def uids(self) -> range:
        """Those that Nix allocates to builds, where it does; its defaults where not told."""
        first = host.FIRST_ALLOCATED if self.first_allocated is None else self.first_allocated
        count = host.ALLOCATED if self.allocated is None else self.allocated
        return range(first, first + count)


@dataclass(frozen=True, slots=True)
class Nix:
    """The Nix that is asked, and what it says."""

    program: str
    version: NixVersion | Unknown
    daemon_version: NixVersion | Unknown
    settings: Settings | Unknown
    answers: Fact
    """Whether the daemon says of a path if it is valid; unknown if there is no daemon."""
    changed: float | None
    """Unix time of the last change of nix.conf; None if there is none, or it is not seen."""
    hidden: str = ""
    """A file of Nix's configuration that this user may not read; empty if he may read all."""
    misconfigured: bool = False
    """Whether it cannot be run because of its configuration: without that it can."""

    @property
    def builder(self) -> NixVersion | Unknown:
        """The version that builds: that of the daemon, or else that of the program."""
        return self.version if isinstance(self.daemon_version, Unknown) else self.daemon_version


@dataclass(frozen=True, slots=True)
class Daemon:
    """Who listens at nix-daemon's socket."""

    uid: int
    pid: int | None
    """None if it runs in a pid namespace that cannot be seen."""
    began: float | None
    """Unix time at which the longest-running one began; None if none is seen."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """The build users, as the system knows them."""

    group: str
    exists: bool
    members: tuple[tuple[str, int | None], ...] = ()
    """Names with uids; None for a member that no longer exists."""
    shared: tuple[tuple[str, str], ...] = ()
    """A build user, and another account with its uid."""
    logins: tuple[str, ...] = ()
    """Build users that can log in, as no installer makes them."""
    allocated: tuple[str, ...] = ()
    """Accounts whose uid lies where Nix allocates its own (`auto-allocate-uids`)."""


@dataclass(frozen=True, slots=True)
class Database:
    """Nix's database as this user sees it."""

    realisations: int | None = None
    """How many outputs of derivations it has recorded; None if it cannot be read here."""
    unseen: str = ""
    """Why not, where that is no fault of the database."""
    broken: str = ""
    """What is wrong with it."""


@dataclass(frozen=True, slots=True)
class Mount:
    """The file system that the store is on."""

    point: str
    kind: str
    read_only: bool
    wholly: Known
    """Whether the file system itself is, so that no other mount of it could be written to."""
    unfit: str
    """Why nothing may be removed on it; empty where it may."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is left on a file system, for users who are not root."""

    places: tuple[str, ...]
    """What of ours and Nix's lies on it: `store`, `state`, `log`."""
    path: str
    size: int
    free: int
    """Bytes."""
    inodes: int
    """0 where the file system does not count them."""
    free_inodes: int


@dataclass(frozen=True, slots=True)
class Service:
    """storewarden's own service."""

    installed: bool
    """Whether there is a unit, a job or a status of it."""
    running: bool | Unknown
    said: ServiceStatus | None
    """What it last said."""
    owns: bool | None
    """Whether it runs as root, and so needs no helper; None if that is not seen."""


class Listening(Enum):
    """What is at the helper's socket."""

    NOTHING = "nothing is there"
    NO_SOCKET = "what is there is no socket"
    SILENT = "nobody listens there"
    YES = "somebody listens there"


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it, at one moment."""

    now: float
    uid: int
    config: Config
    config_problem: str
    """What is wrong with the configuration of the service; empty if nothing is."""
    kernel: Kernel
    nix: Nix
    daemon: Daemon | Unknown | None
    """None if nobody listens."""
    accounts: Accounts | Unknown
    database: Database | Unknown
    store: Known
    """Whether the store directory can be listed; no: it is not there."""
    state: Known
    """Whether Nix's state directory is there."""
    mount: Mount | Unknown
    rooms: tuple[Room, ...]
    roomless: tuple[tuple[str, str], ...]
    """Places of which nothing can be told, and why."""
    shelter: Known
    """Whether /homeless-shelter exists."""
    service: Service
    helper: Listening | Unknown
    audit: Verification | Unknown | None
    """None if there is no audit log yet."""

    @property
    def apart(self) -> bool:
        """Whether Nix's state, or nix-daemon, is outside of this container or sandbox."""
        outside = isinstance(self.daemon, Daemon) and self.daemon.pid is None
        return outside or self.state is Known.NO

    @property
    def guarded(self) -> bool:
        """Whether a service is at work that removes what is proved dead, and can."""
        service, said = self.service, self.service.said
        if service.running is not True or said is None or said.problems:
            return False
        reached = isinstance(self.helper, Unknown) or self.helper is Listening.YES
        return said.mode == Mode.REPAIR and (service.owns is True or reached)
