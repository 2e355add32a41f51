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

  # Nix lets in whom it trusts, too (src/nix/daemon.cc, 2.8 and later).
  letIn =
    (config.nix.settings.allowed-users or [ "*" ]) ++ (config.nix.settings.trusted-users or [ ]);

  mayAskNix = lib.any (name: lib.elem name letIn) (
    [
      "*"
      "storewarden"
      "@storewarden"
    ]
    ++ map (group: "@${group}") config.users.users.storewarden.extraGroups
  );

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

  fixed = [
    "audit-log"
    "runtime-dir"
    "socket"
    "state-dir"
    "store-dir"
  ];
in
{
  imports = [ ./options.nix ];

  options.services.storewarden.storeAccess = lib.mkOption {
    type = types.enum [
      "bind"
      "mount"
      "remount"
    ];
    default = if ownMount then "remount" else "bind";
    defaultText = lib.literalMD ''
      `"remount"` where `fileSystems` mounts {file}`/nix/store`, else `"bind"`
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

  config = lib.mkIf cfg.enable {
    assertions =
      map (key: {
        assertion = !cfg.settings ? ${key};
        message = "services.storewarden.settings.${key} cannot be set: the units depend on its default.";
      }) fixed
      ++ [
        {
          assertion = ownMount -> cfg.storeAccess != "bind";
          message = ''
            services.storewarden.storeAccess is "bind", but fileSystems mounts /nix/store: a view of /nix
            would show the directory below that mount. Leave storeAccess unset, or set it to "remount".
          '';
        }
        {
          assertion = config.nix.enable -> mayAskNix;
          message = ''
            nix.settings.allowed-users leaves out the user of storewarden, who asks the Nix daemon which
            paths are valid. Add it: nix.settings.allowed-users = [ "storewarden" ];
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

    environment.systemPackages = [ cfg.package ];
    environment.etc."storewarden/config.toml".source = cfg.configFile;

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

    systemd.sockets.storewarden-helper.wantedBy = [ "sockets.target" ];

    systemd.services.storewarden = {
      wantedBy = [ "multi-user.target" ];
      reloadTriggers = [ cfg.configFile ];
    };

    # mount and setpriv, for where the store is remounted.
    systemd.services.storewarden-helper.path = lib.optional (
      cfg.storeAccess == "remount"
    ) pkgs.util-linux;
  };

  meta.maintainers = [ ];
}
