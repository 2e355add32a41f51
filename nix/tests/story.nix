# SPDX-License-Identifier: MIT
# The whole story in a virtual machine, for pkgs.testers.runNixOSTest. It awaits its first run.
{ module }:
{
  name = "storewarden";

  nodes.machine =
    { lib, ... }:
    {
      imports = [ module ];

      services.storewarden.enable = true;

      nix.settings = {
        experimental-features = [
          "nix-command"
          "ca-derivations"
        ];
        sandbox = false;
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

  testScript = ''
    def of(name):
        """A pattern for what a build of that name writes to, and the lock of that."""
        return f"'-{name}(\\.drv\\.out\\.lock)?$'"


    def start(name):
        """Begin the build of an ordinary user; return when its output is half there."""
        words = f"nix-build --no-out-link /etc/job.nix --argstr name {name}"
        settings = "--setenv=PATH=/run/current-system/sw/bin --setenv=HOME=/home/alice"
        machine.succeed(f"systemd-run --unit=build-{name} --collect --uid=alice {settings} {words}")
        machine.wait_until_succeeds(f"ls -d /nix/store/*-{name}/half", timeout=60)


    def interrupt(name):
        """Ctrl+C to that build."""
        machine.succeed(f"systemctl kill --signal=INT build-{name}.service")
        machine.wait_until_fails(f"systemctl is-active build-{name}.service", timeout=30)


    def finish(name):
        """Let it end, and see that it has built its own files and nothing else."""
        machine.succeed(f"touch /var/signals/{name}")
        build = f"nix-build --no-out-link /etc/job.nix --argstr name {name}"
        out = machine.succeed(f"su - alice -c '{build}'").strip()
        machine.succeed(f"nix-store --check-validity {out}")
        assert machine.succeed(f"ls -A {out}").split() == ["whole"]


    def assert_read_only():
        machine.fail("touch /nix/store/x")
        assert "ro" in machine.succeed("findmnt -no OPTIONS /nix/store").strip().split(",")


    def wait_for_storewarden():
        machine.wait_for_unit("storewarden-helper.socket")
        machine.wait_for_unit("storewarden.service")


    def wait_until_gone(name):
        machine.wait_until_succeeds(f"! ls -A /nix/store | grep -E -- {of(name)}", timeout=60)


    wait_for_storewarden()

    with subtest("the configuration and the programs are those of this system"):
        machine.succeed("storewarden check-config")
        machine.succeed("storewarden status")
        assert_read_only()
        settings = machine.succeed("cat /etc/storewarden/config.toml")
        assert 'nix = "/nix/store/' in settings, settings

    with subtest("without it, an interrupted build leaves its half"):
        machine.succeed("systemctl stop storewarden.service")
        start("job-first")
        interrupt("job-first")
        machine.sleep(5)
        machine.succeed(f"ls -A /nix/store | grep -E -- {of('job-first')}")

    with subtest("with it, that is removed, and a live build is kept"):
        start("job-live")
        machine.succeed("systemctl start storewarden.service")
        wait_until_gone("job-first")
        machine.succeed("ls -d /nix/store/*-job-live/half")
        finish("job-first")
        start("job-second")
        interrupt("job-second")
        wait_until_gone("job-second")
        finish("job-live")

    with subtest("the store is read-only to everybody else"):
        assert_read_only()

    with subtest("the helper has two capabilities, and the watcher none"):
        start("job-third")
        interrupt("job-third")
        wait_until_gone("job-third")
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
        start("job-cut")
        machine.succeed("sync")
        machine.crash()
        machine.start()
        wait_for_storewarden()
        wait_until_gone("job-cut")
        finish("job-cut")
        assert_read_only()

    with subtest("the audit log is whole"):
        machine.succeed("storewarden audit verify")
        shown = machine.succeed("storewarden audit show")
        for name in ("job-first", "job-second", "job-third", "job-cut"):
            assert f"-{name}" in shown, f"{name} is not in it"
  '';
}
