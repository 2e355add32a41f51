# SPDX-License-Identifier: MIT
# The modules of nix/ in the module system of nixpkgs' library, and what NixOS would make of them: a
# directory with the units, their drop-ins, and /etc.
#   configuration  a module
#   nix-darwin     a checkout of it, whose own launchd module is then used, or null
{
  library,
  python ? {
    interpreter = "/usr/bin/python3";
    sitePackages = "lib/python3.11/site-packages";
  },
  dependencies ? "/nowhere",
  shell ? "/bin/bash",
  configuration ? { },
  nix-darwin ? null,
}:
let
  lib = import (library + "/lib");
  pkgs =
    system:
    import ./nixpkgs.nix {
      inherit
        library
        python
        dependencies
        shell
        system
        ;
    };

  inherit (import ./options.nix { inherit lib nix-darwin; }) common darwin nixos;

  evaluated =
    system: modules:
    let
      inherit
        (lib.evalModules {
          modules = [
            common
            configuration
            { _module.args.pkgs = pkgs system; }
          ]
          ++ modules;
        })
        config
        options
        ;
      failed = lib.filter (one: !one.assertion) config.assertions;
    in
    {
      inherit options;
      config =
        if failed == [ ] then config else throw (lib.concatMapStringsSep "\n" (one: one.message) failed);
    };

  onNixos = evaluated builtins.currentSystem [
    nixos
    ../../nix/module.nix
  ];

  onDarwin = evaluated "aarch64-darwin" [
    darwin
    ../../nix/darwin-module.nix
  ];

  plists = lib.mapAttrs (_: job: lib.generators.toPlist { escape = true; } job.serviceConfig);

  documentation =
    options:
    lib.listToAttrs (
      map
        (
          one:
          lib.nameValuePair one.name {
            description = one.description or null;
            default = one.default.text or null;
            example = one.example.text or null;
          }
        )
        (
          lib.filter (one: lib.hasPrefix "services.storewarden." one.name && one.visible && !one.internal) (
            lib.optionAttrSetToDocList options
          )
        )
    );

  section = lib.generators.toKeyValue { };

  # What NixOS writes for a unit that a package ships: a drop-in, overrides.conf.
  overrides = unit: ''
    [Unit]
    ${section (unit.unitConfig or { })}${
      lib.concatMapStrings (file: "X-Reload-Triggers=${file}\n") (unit.reloadTriggers or [ ])
    }
    ${lib.optionalString (unit ? path) ("[Service]\n" + section (unit.serviceConfig or { }))}${
      lib.optionalString (unit.path or [ ] != [ ]) ''
        Environment="PATH=${lib.makeBinPath unit.path}"
      ''
    }${
      lib.concatStrings (
        lib.mapAttrsToList (name: value: "Environment=${builtins.toJSON "${name}=${value}"}\n") (
          unit.environment or { }
        )
      )
    }
  '';
in
{
  inherit (pkgs builtins.currentSystem) python3Packages;

  package = onNixos.config.services.storewarden.package;
  about = {
    inherit (onNixos.config.services.storewarden.package) meta;
    passthru = { inherit (onNixos.config.services.storewarden.package.passthru) updateScript; };
    tests = lib.attrNames onNixos.config.services.storewarden.package.tests;
  };
  checkedPackage = onNixos.config.services.storewarden.package.withChecks;

  inherit ((pkgs builtins.currentSystem).callPackage ../../nix/shell.nix { }) shellHook;

  # All that NixOS takes from the module, without building anything.
  nixos = {
    inherit (onNixos.config) users systemd;
    nix = onNixos.config.nix.settings;
    doc = toString onNixos.config.meta.doc;
    inherit (onNixos.config.services.storewarden) settings storeAccess;
    etc = lib.attrNames onNixos.config.environment.etc;
  };

  darwin = {
    inherit (onDarwin.config.services.storewarden) settings;
    inherit (onDarwin.config.users) knownGroups knownUsers;
    user = onDarwin.config.users.users._storewarden.uid or null;
    checks = onDarwin.config.system.checks.text;
    activation = onDarwin.config.system.activationScripts.launchd.text or "";
    nix = onDarwin.config.nix.settings;
    written = onDarwin.config.services.storewarden.configFile.unchecked.text;
    plists = plists onDarwin.config.launchd.daemons // plists onDarwin.config.launchd.user.agents;
  };

  # Every option there is, by its path, as the manual of its system has it: its description, and its
  # default and example as they are written there.
  documented = lib.mapAttrs (_: documentation) {
    nixos = onNixos.options;
    darwin = onDarwin.options;
  };

  # The directory that NixOS would link /etc to, as far as it is the module's.
  etc = (pkgs builtins.currentSystem).runCommandLocal "etc" { } (
    ''
      units=$out/systemd/system
      mkdir -p "$units" "$out/storewarden" "$out/sysusers.d"
      cp -L ${onNixos.config.environment.etc."storewarden/config.toml".source} "$out/storewarden/config.toml"
      cp ${onNixos.config.services.storewarden.package}/lib/sysusers.d/*.conf "$out/sysusers.d"
    ''
    + lib.concatMapStrings (package: ''
      cp -rL ${package}/lib/systemd/system/. "$units"
      chmod -R u+w "$units"
    '') onNixos.config.systemd.packages
    + lib.concatStrings (
      lib.mapAttrsToList
        (name: unit: ''
          mkdir -p "$units/${name}.d"
          printf %s ${lib.escapeShellArg (overrides unit)} > "$units/${name}.d/overrides.conf"
        '')
        (
          lib.mapAttrs' (name: lib.nameValuePair "${name}.service") onNixos.config.systemd.services
          // lib.mapAttrs' (name: lib.nameValuePair "${name}.socket") onNixos.config.systemd.sockets
        )
    )
  );
}
