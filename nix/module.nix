# SPDX-License-Identifier: MIT
# NixOS. The units are those that the package ships, and so are the drop-ins: what is said of them
# here is only which of them are in force, and what differs between machines.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) types;

  cfg = config.services.storewarden;

  ownMount = lib.any (one: one.mountPoint == "/nix/store") (lib.attrValues config.fileSystems);

  # A container of NixOS has its host's store, whose database is mounted read-only there (nixpkgs,
  # nixos-containers.nix); the host's own storewarden looks after it. One with a Nix of its own has both.
  onlyWhereNixIs = lib.optionalAttrs config.boot.isContainer {
    ConditionPathIsReadWrite = "/nix/var/nix/db";
  };

  # What they say is for the journal, and has its priority.
  quieter = lib.optionalAttrs (cfg.logLevel != "info") { LogLevelMax = cfg.logLevel; };

  loopback =
    builtins.match "(localhost|127(\\.[0-9]{1,3}){3}|\\[?::1]?):[0-9]+" cfg.settings.metrics-listen
    != null;

  # NixOS' own overrides.conf comes after these, so whatever is set there wins.
  dropIn = unit: name: edits: ''
    mkdir -p "$out/lib/systemd/system/${unit}.d"
    sed -e "" ${lib.escapeShellArgs edits} \
      ${cfg.package}/share/storewarden/drop-ins/${name}.conf \
      > "$out/lib/systemd/system/${unit}.d/10-${name}.conf"
  '';

  dropIns = pkgs.runCommandLocal "storewarden-drop-ins" { } (
    dropIn "storewarden.service" "storewarden-notify-reload" [ ]
    + lib.optionalString (cfg.settings.metrics-listen != null) (
      dropIn "storewarden.service" "storewarden-metrics" (
        lib.optional (!loopback) "-es|^IPAddressAllow=.*|IPAddressAllow=any|"
      )
    )
    + lib.optionalString (cfg.settings.metrics-textfile != null) (
      dropIn "storewarden.service" "storewarden-textfile" [
        "-es|^ReadWritePaths=.*|ReadWritePaths=-${dirOf cfg.settings.metrics-textfile}|"
      ]
    )
    + lib.optionalString (cfg.storeAccess != "bind") (
      dropIn "storewarden-helper.service" "storewarden-helper-store-${cfg.storeAccess}" [ ]
    )
  );
in
{
  imports = [ ./options.nix ];

  options.services.storewarden = {
    storeAccess = lib.mkOption {
      type = types.enum [
        "bind"
        "mount"
        "remount"
      ];
      default = if ownMount then "remount" else "bind";
      defaultText = lib.literalMD ''
        `"remount"` where `fileSystems` mounts `/nix/store`, else `"bind"`
      '';
      description = ''
        How the helper, and nothing else, comes to a store that it can write to.

        - `bind`: by a view of {file}`/nix` that leaves out the read-only mount of the store over
          itself. This needs no privilege.
        - `remount`: by a view of {file}`/nix/store` that is remounted for the helper. It is for a store
          that is a file system of its own, and takes CAP_SYS_ADMIN, which is given up before the
          helper's first line runs.
        - `mount`: by a view of {file}`/nix/store` as it is. It is for a store that is a file system of
          its own and is not mounted read-only.
      '';
    };

    logLevel = lib.mkOption {
      type = types.enum [
        "info"
        "warning"
        "err"
      ];
      default = "info";
      description = ''
        The least important of what watcher and helper say that the journal keeps. What was removed, and
        why, is in the audit log in any case.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = ownMount -> cfg.storeAccess != "bind";
        message = ''
          services.storewarden.storeAccess is "bind", but fileSystems mounts /nix/store: a view of /nix
          would show the directory below that mount. Leave storeAccess unset, or set it to "remount".
        '';
      }
      {
        assertion = config.nix.enable -> (config.nix.daemonUser or "root") == "root";
        message = ''
          nix.daemonUser is not root, so the store belongs to a user who could exchange in it what the
          helper runs as root; it would refuse to work. storewarden needs a store that root owns.
        '';
      }
    ];

    services.storewarden.fixed = lib.genAttrs [
      "audit-log"
      "runtime-dir"
      "socket"
      "state-dir"
      "store-dir"
    ] (_: null);

    # The watcher asks the Nix daemon which paths are valid.
    nix.settings = lib.mkIf config.nix.enable { extra-allowed-users = [ "storewarden" ]; };

    users.groups.storewarden = { };
    users.users.storewarden = {
      description = "Watches the Nix store";
      group = "storewarden";
      isSystemUser = true;
    };

    systemd.packages = [
      cfg.package
      dropIns
    ];

    systemd.sockets.storewarden-helper = {
      wantedBy = [ "sockets.target" ];
      unitConfig = onlyWhereNixIs;
    };

    systemd.services.storewarden = {
      wantedBy = [ "multi-user.target" ];
      reloadTriggers = [ cfg.configFile ];
      unitConfig = onlyWhereNixIs;
      serviceConfig = quieter;
    };

    systemd.services.storewarden-helper = {
      # mount and setpriv, for where the store is remounted.
      path = lib.optional (cfg.storeAccess == "remount") pkgs.util-linux;
      environment = lib.optionalAttrs (cfg.extraArgs != [ ]) {
        STOREWARDEN_HELPER_OPTIONS = toString cfg.extraArgs;
      };
      serviceConfig = quieter;
    };
  };

  meta.maintainers = import ./maintainers.nix { inherit lib; };
  meta.doc = ./module.md;
}
