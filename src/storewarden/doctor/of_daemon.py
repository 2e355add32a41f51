# SPDX-License-Identifier: MIT
"""nix-daemon: does it listen, does it answer, how is it started. Pure."""

from storewarden.doctor.diagnosis import Diagnosis, Step, note, ok, problem, unknown
from storewarden.doctor.facts import Daemon, Facts, Unknown
from storewarden.doctor.versions import Flavour, NixVersion
from storewarden.store.fact import Known

_RESTART = "sudo systemctl restart nix-daemon"
_RESTART_ON_MACOS = "sudo launchctl kickstart -k system/org.nixos.nix-daemon"


def restart(facts: Facts) -> tuple[Step, ...]:
    """How nix-daemon is made to read nix.conf again; nothing where there is none."""
    if not isinstance(facts.daemon, Daemon):
        return ()
    if facts.kernel.darwin:
        again = "Restart nix-daemon (with Determinate Nix it is systems.determinate.nix-daemon)."
        return (Step(again, _RESTART_ON_MACOS),)
    return (Step("Restart nix-daemon.", _RESTART if facts.kernel.systemd else ""),)


def setting(facts: Facts, text: str, when: str = "") -> tuple[Step, ...]:
    """How nix-daemon is given a setting where this machine keeps its own; and made to read it."""
    place, declared = place_of_settings(facts), facts.kernel.declared
    if declared:
        return (Step(f"Set {text} in {place}{when}, and switch to it."),)
    return (Step(f"Set {text} in {place}{when}."), *restart(facts))


def place_of_settings(facts: Facts) -> str:
    """Where settings of Nix belong: what a system or Determinate's daemon writes is theirs.

    Determinate replaces nix.conf, which includes nix.custom.conf; on NixOS that is made from
    nix.settings (DeterminateSystems/determinate#88, #89, #104).
    """
    version, declared = facts.nix.builder, facts.kernel.declared
    determinate = isinstance(version, NixVersion) and version.flavour is Flavour.DETERMINATE
    if determinate and declared == "nix-darwin":
        return "customSettings of Determinate's module for nix-darwin"
    if declared:
        return f"nix.settings of {declared}"
    return f"/etc/nix/{'nix.custom.conf' if determinate else 'nix.conf'}"


def of_daemon(facts: Facts) -> Diagnosis:
    """Who listens at its socket, and what came of asking."""
    answers, daemon = facts.nix.answers, facts.daemon
    silent = f"Nix says: {answers.detail}" if answers.known is Known.NO else ""
    match daemon:
        case Unknown(reason):
            return problem(
                "daemon",
                f"nix-daemon cannot be reached: {reason}",
                f"This user may not ask Nix, or it hangs. {silent}".strip(),
                Step("May this user ask? Its groups, and that of the socket's directory."),
                Step("", f"id; ls -ld {facts.config.state_dir}/daemon-socket"),
            )
        case None:
            return _no_daemon(facts, silent)
        case Daemon() if silent:
            return _silent(facts, silent)
        case Daemon(pid=None):
            return unknown(
                "daemon",
                "nix-daemon answers, but runs outside of this container or sandbox",
                "Its settings, its builds and their locks cannot be seen from here, and"
                " storewarden removes nothing here.",
                Step("Look where nix-daemon runs.", "storewarden doctor"),
            )
        case Daemon():
            return ok("daemon", "nix-daemon answers")


def _silent(facts: Facts, silent: str) -> Diagnosis:
    if isinstance(facts.nix.version, Unknown):
        return unknown(  # the program failed, whatever the daemon does: no reason to restart that
            "daemon",
            "nix-daemon listens; whether it answers cannot be asked without Nix",
            "It may be at work as ever.",
        )
    return problem(
        "daemon",
        "nix-daemon listens and does not answer",
        f"{silent}. Nothing builds, and nothing can be removed.",
        *restart(facts),
    )


def _no_daemon(facts: Facts, silent: str) -> Diagnosis:
    if facts.state is Known.NO:
        return problem(
            "daemon",
            f"There is no {facts.config.state_dir} here: this is no machine with Nix, or a sandbox"
            " that was not given it",
            "Nothing of Nix can be asked or seen, so nothing is removed.",
            Step("Look where Nix runs.", "storewarden doctor"),
        )
    if silent:
        return problem(
            "daemon",
            "Nobody listens at nix-daemon's socket, and Nix does not answer",
            f"{silent}. Nothing builds, and nothing can be removed.",
            _start_daemon(facts),
        )
    return note(
        "daemon",
        "There is no nix-daemon: Nix opens the store by itself",
        "Builds run as children of whoever asks for them.",
    )


def _start_daemon(facts: Facts) -> Step:
    if facts.kernel.darwin:
        return Step("Start it.", _RESTART_ON_MACOS)
    if facts.kernel.systemd:
        return Step("Start it.", "sudo systemctl start nix-daemon.socket nix-daemon.service")
    return Step("Start it, as root.", "nix-daemon --daemon")
