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

  plists =
    names: jobs:
    lib.genAttrs names (
      name: lib.generators.toPlist { escape = true; } jobs.${name}.serviceConfig
    );

  # What NixOS writes for a service that a package ships: a drop-in, overrides.conf.
  overrides = service: ''
    [Unit]
    ${lib.concatMapStrings (file: "X-Reload-Triggers=${file}\n") (service.reloadTriggers or [ ])}
    [Service]
    ${lib.optionalString (service.path != [ ]) ''
      Environment="PATH=${lib.makeBinPath service.path}"
    ''}${
      lib.concatStrings (
        lib.mapAttrsToList (name: value: "Environment=${builtins.toJSON "${name}=${value}"}\n") (
          service.environment or { }
        )
      )
    }
  '';
in
{
  inherit (pkgs builtins.currentSystem) python3Packages;

  package = onNixos.config.services.storewarden.package;
  checkedPackage = onNixos.config.services.storewarden.package.withChecks;

  # All that NixOS takes from the module, without building anything.
  nixos = {
    inherit (onNixos.config) users systemd;
    inherit (onNixos.config.services.storewarden) settings storeAccess;
    etc = lib.attrNames onNixos.config.environment.etc;
  };

  darwin = {
    inherit (onDarwin.config.services.storewarden) settings;
    plists = plists [
      "storewarden-helper"
      "storewarden"
    ] onDarwin.config.launchd.daemons;
  };

  # Every option there is, by its path, with its description.
  documented = lib.listToAttrs (
    map (one: lib.nameValuePair one.name (one.description or null)) (
      lib.filter (one: lib.hasPrefix "services.storewarden." one.name && one.visible && !one.internal) (
        lib.optionAttrSetToDocList onNixos.options
      )
    )
  );

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
      lib.mapAttrsToList (name: service: ''
        mkdir -p "$units/${name}.service.d"
        printf %s ${lib.escapeShellArg (overrides service)} > "$units/${name}.service.d/overrides.conf"
      '') onNixos.config.systemd.services
    )
  );
}
