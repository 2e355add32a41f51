# SPDX-License-Identifier: MIT
# The whole story in virtual machines: a test of NixOS, as nixpkgs' runTest and pkgs.testers.runNixOSTest
# take it. Where the module is no part of NixOS, defaults.imports has it. It awaits its first run.
{ lib, ... }:
let
  base = {
    services.storewarden.enable = true;

    nix.settings = {
      experimental-features = [
        "nix-command"
        "ca-derivations"
      ];
      sandbox = lib.mkDefault false;
      substituters = lib.mkForce [ ];
    };

    users.users.alice.isNormalUser = true;

    environment.etc."job.nix".source = ./job.nix;

    systemd.tmpfiles.settings.signals."/var/signals".d.mode = "0755";

    # From a disk of its own: else the store would be an overlay over the host's, where storewarden
    # removes nothing.
    virtualisation.useBootLoader = true;
    virtualisation.useEFIBoot = true;
    boot.loader.systemd-boot.enable = true;

    # That disk is made as large as what is on it.
    boot.growPartition = true;
    virtualisation.diskSize = 4096;
    virtualisation.fileSystems."/".autoResize = true;
  };
in
{
  name = "storewarden";
  meta.maintainers = import ../maintainers.nix { inherit lib; };

  nodes = {
    machine = base;

    # The store becomes a file system of its own while the test runs: the disk that a machine starts
    # from has no second one.
    remount =
      { pkgs, ... }:
      {
        imports = [ base ];
        services.storewarden.storeAccess = "remount";
        virtualisation.emptyDiskImages = [ 4096 ];
        environment.systemPackages = [ pkgs.e2fsprogs ];
      };

    sandbox =
      { pkgs, ... }:
      {
        imports = [ base ];
        nix.settings.sandbox = true;
        # What job.nix runs there, and waits for.
        nix.settings.extra-sandbox-paths = [
          "/run/current-system/sw/bin=${pkgs.coreutils}/bin"
          "/var/signals"
        ];
        services.storewarden.settings.kinds = [
          "chroot"
          "lock"
          "output"
        ];
      };

    # What it switches to has another configuration, other units, and other code.
    upgrade =
      { config, pkgs, ... }:
      {
        imports = [ base ];
        specialisation.newer.configuration.services.storewarden = {
          package = config.services.storewarden.package.overridePythonAttrs (_: {
            pname = "storewarden-newer";
            doCheck = false;
          });
          settings.metrics-listen = "127.0.0.1:9913";
        };
        environment.systemPackages = [ pkgs.curl ];
      };
  };

  testScript = ''
    def of(name):
        """A pattern for what a build of that name writes to, and the lock of that."""
        return f"'-{name}(\\.drv\\.out\\.lock|\\.drv\\.chroot)?$'"


    def start(node, name):
        """Begin the build of an ordinary user; return when its output is half there."""
        words = f"nix-build --no-out-link /etc/job.nix --argstr name {name}"
        settings = "--setenv=PATH=/run/current-system/sw/bin --setenv=HOME=/home/alice"
        node.succeed(f"systemd-run --unit=build-{name} --collect --uid=alice {settings} {words}")
        begun = f"ls -d /nix/store/*-{name}/half || ls -d /nix/store/*-{name}.drv.chroot"
        node.wait_until_succeeds(begun, timeout=60)


    def interrupt(node, name):
        """Ctrl+C to that build."""
        node.succeed(f"systemctl kill --signal=INT build-{name}.service")
        node.wait_until_fails(f"systemctl is-active build-{name}.service", timeout=30)


    def finish(node, name):
        """Let it end, and see that it has built its own files and nothing else."""
        node.succeed(f"touch /var/signals/{name}")
        build = f"nix-build --no-out-link /etc/job.nix --argstr name {name}"
        out = node.succeed(f"su - alice -c '{build}'").strip()
        node.succeed(f"nix-store --check-validity {out}")
        assert node.succeed(f"ls -A {out}").split() == ["whole"]


    def assert_read_only(node):
        node.fail("touch /nix/store/x")
        assert "ro" in node.succeed("findmnt -no OPTIONS /nix/store").strip().split(",")


    def wait_for_storewarden(node):
        node.wait_for_unit("storewarden-helper.socket")
        node.wait_for_unit("storewarden.service")


    def wait_until_gone(node, name):
        node.wait_until_succeeds(f"! ls -A /nix/store | grep -E -- {of(name)}", timeout=60)


    def heals(node, name):
        """What a build strands is removed, and it can be built."""
        start(node, name)
        interrupt(node, name)
        wait_until_gone(node, name)
        finish(node, name)


    start_all()
    wait_for_storewarden(machine)

    with subtest("the configuration and the programs are those of this system"):
        machine.succeed("storewarden check-config")
        machine.succeed("storewarden status")
        assert_read_only(machine)
        settings = machine.succeed("cat /etc/storewarden/config.toml")
        assert 'nix = "/nix/store/' in settings, settings

    with subtest("without it, an interrupted build leaves its half"):
        machine.succeed("systemctl stop storewarden.service")
        start(machine, "job-first")
        interrupt(machine, "job-first")
        machine.sleep(5)
        machine.succeed(f"ls -A /nix/store | grep -E -- {of('job-first')}")

    with subtest("with it, that is removed, and a live build is kept"):
        start(machine, "job-live")
        machine.succeed("systemctl start storewarden.service")
        wait_until_gone(machine, "job-first")
        machine.succeed("ls -d /nix/store/*-job-live/half")
        finish(machine, "job-first")
        heals(machine, "job-second")
        finish(machine, "job-live")

    with subtest("the store is read-only to everybody else"):
        assert_read_only(machine)

    with subtest("the helper has two capabilities, and the watcher none"):
        heals(machine, "job-third")
        for unit, capabilities in (("storewarden-helper", f"{0xA:016x}"), ("storewarden", f"{0:016x}")):
            pid = machine.succeed(f"systemctl show --property=MainPID --value {unit}.service").strip()
            machine.succeed(f"grep '^CapBnd:.{capabilities}$' /proc/{pid}/status")
        machine.succeed("systemd-analyze security --threshold=15 storewarden-helper.service")
        machine.succeed("systemd-analyze security --threshold=10 storewarden.service")

    with subtest("no variable adds code"):
        machine.succeed("mkdir /tmp/poison && echo 'raise SystemExit(66)' > /tmp/poison/psutil.py")
        for variable in ("NIX_PYTHONPATH", "PYTHONPATH"):
            machine.succeed(f"{variable}=/tmp/poison storewarden status")
            machine.succeed(f"{variable}=/tmp/poison storewarden scan --dry-run")

    with subtest("what a power cut leaves is removed after it"):
        start(machine, "job-cut")
        machine.succeed("sync")
        machine.crash()
        machine.start()
        wait_for_storewarden(machine)
        wait_until_gone(machine, "job-cut")
        finish(machine, "job-cut")
        assert_read_only(machine)

    with subtest("the audit log is whole"):
        machine.succeed("storewarden audit verify")
        shown = machine.succeed("storewarden audit show")
        for name in ("job-first", "job-second", "job-third", "job-cut"):
            assert f"-{name}" in shown, f"{name} is not in it"

    with subtest("a store that is a file system of its own is remounted for the helper alone"):
        wait_for_storewarden(remount)
        remount.succeed(
            "systemctl stop storewarden.service storewarden-helper.socket storewarden-helper.service",
            "mkfs.ext4 -q /dev/vdb && mkdir /mnt && mount /dev/vdb /mnt",
            "cp -a /nix/store/. /mnt && chown 0:nixbld /mnt && chmod 1775 /mnt && umount /mnt",
            "mount /dev/vdb /nix/store && mount -o remount,bind,ro /nix/store",
            "systemctl restart nix-daemon.socket",
            "systemctl start storewarden-helper.socket storewarden.service",
        )
        heals(remount, "job-own")
        assert_read_only(remount)
        pid = remount.succeed("systemctl show --property=MainPID --value storewarden-helper.service")
        remount.succeed(f"grep '^CapBnd:.{0xA:016x}$' /proc/{pid.strip()}/status")

    with subtest("what a killed build strands outside its sandbox goes as well"):
        wait_for_storewarden(sandbox)
        start(sandbox, "job-boxed")
        sandbox.succeed("systemctl kill --signal=KILL nix-daemon.service")
        sandbox.wait_until_fails("systemctl is-active build-job-boxed.service", timeout=30)
        wait_until_gone(sandbox, "job-boxed")
        finish(sandbox, "job-boxed")

    with subtest("a switch exchanges configuration, units and code under a live build"):
        wait_for_storewarden(upgrade)
        heals(upgrade, "job-before")
        before = upgrade.succeed("systemctl show --property=ExecStart storewarden.service")
        start(upgrade, "job-during")
        newer = "/run/current-system/specialisation/newer/bin/switch-to-configuration"
        upgrade.succeed(f"{newer} test")
        wait_for_storewarden(upgrade)
        after = upgrade.succeed("systemctl show --property=ExecStart storewarden.service")
        assert "-storewarden-newer-" in after and "-storewarden-newer-" not in before, after
        upgrade.succeed("ls -d /nix/store/*-job-during/half")
        upgrade.wait_until_succeeds("curl -sf http://127.0.0.1:9913/metrics | grep -q storewarden")
        finish(upgrade, "job-during")
        heals(upgrade, "job-after")
        upgrade.succeed("storewarden audit verify")
  '';
}
