# SPDX-License-Identifier: MIT
# The modules of nix/ in the module system of nixpkgs' library, with as many of the options of NixOS
# and nix-darwin as they touch, of the same types; and what NixOS would make of them: a directory
# with the units, their drop-ins, and /etc.
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
  inherit (lib) types;

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

  anything = lib.mkOption {
    type = types.attrsOf types.anything;
    default = { };
  };

  listOf =
    type:
    lib.mkOption {
      type = types.listOf type;
      default = [ ];
    };

  common =
    { config, pkgs, ... }:
    {
      options = {
        assertions = listOf types.unspecified;
        environment.etc = anything;
        environment.systemPackages = listOf types.package;
        meta.maintainers = listOf types.unspecified;
        nix.enable = lib.mkOption {
          type = types.bool;
          default = true;
        };
        # As on nix-darwin, where nobody may look at it without Nix.
        nix.package = lib.mkOption {
          type = types.package;
          default = pkgs.nix;
          apply = package: if config.nix.enable then package else throw "nix.package, but no nix.enable";
        };
        nix.settings = anything;
      };
    };

  nixos = {
    options = {
      fileSystems = anything;
      systemd.packages = listOf types.package;
      systemd.services = lib.mkOption {
        default = { };
        type = types.attrsOf (
          types.submodule {
            freeformType = types.attrsOf types.anything;
            options.path = listOf types.unspecified;
          }
        );
      };
      systemd.sockets = anything;
      users = anything;
    };
  };

  darwin = {
    options = {
      system.primaryUser = lib.mkOption {
        type = types.nullOr types.str;
        default = null;
      };
      system.requiresPrimaryUser = listOf types.str;
    }
    // (
      if nix-darwin == null then
        {
          launchd = lib.mkOption {
            default = { };
            type = types.submodule {
              options.daemons = anything;
              options.user.agents = anything;
            };
          };
        }
      else
        {
          environment.launchAgents = anything;
          environment.launchDaemons = anything;
          environment.userLaunchAgents = anything;
        }
    );
    imports = lib.optional (nix-darwin != null) (nix-darwin + "/modules/launchd");
  };

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
    inherit (onNixos.config.services.storewarden) helperArguments settings storeAccess;
    etc = lib.attrNames onNixos.config.environment.etc;
  };

  darwin = {
    inherit (onDarwin.config.services.storewarden) settings;
    plists =
      plists [ "storewarden-helper" ] onDarwin.config.launchd.daemons
      // plists [ "storewarden" ] onDarwin.config.launchd.user.agents;
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
