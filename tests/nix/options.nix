# SPDX-License-Identifier: MIT
# As many of the options of NixOS and nix-darwin as the modules touch, of the same types.
{ lib, nix-darwin }:
let
  inherit (lib) types;

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

  lines = lib.mkOption {
    type = types.lines;
    default = "";
  };
in
{
  common =
    { config, pkgs, ... }:
    {
      options = {
        assertions = listOf types.unspecified;
        warnings = listOf types.str;
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
        nix.settings = lib.mkOption {
          default = { };
          type = types.submodule {
            freeformType = types.attrsOf types.anything;
            options.extra-allowed-users = listOf types.str;
          };
        };
        nix.daemonUser = lib.mkOption {
          type = types.str;
          default = "root";
        };
      };
    };

  nixos = {
    options = {
      fileSystems = lib.mkOption {
        default = { };
        type = types.attrsOf (
          types.submodule (
            { name, ... }:
            {
              freeformType = types.attrsOf types.anything;
              options.mountPoint = lib.mkOption {
                type = types.str;
                default = name;
              };
            }
          )
        );
      };
      boot.isContainer = lib.mkOption {
        type = types.bool;
        default = false;
      };
      meta.doc = lib.mkOption { type = types.path; };
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
      users.groups = anything;
      users.users = lib.mkOption {
        default = { };
        type = types.attrsOf (
          types.submodule {
            freeformType = types.attrsOf types.anything;
            options.extraGroups = listOf types.str;
          }
        );
      };
    };
  };

  darwin =
    { config, ... }:
    {
      options =
        if nix-darwin == null then
          {
            launchd.daemons = anything;
            launchd.user.agents = anything;
            system.activationScripts.launchd.text = lines;
            system.checks.text = lines;
            system.primaryUser = lib.mkOption {
              type = types.nullOr types.str;
              default = null;
            };
            # Of the same text as modules/system/primary-user.nix has there.
            system.primaryUserHome = lib.mkOption {
              type = types.str;
              default =
                config.users.users.${config.system.primaryUser}.home or "/Users/${config.system.primaryUser}";
            };
            users.groups = anything;
            users.knownGroups = listOf types.str;
            users.knownUsers = listOf types.str;
            users.users = anything;
          }
        else
          {
            # What its modules below refer to.
            environment.launchAgents = anything;
            environment.launchDaemons = anything;
            environment.userLaunchAgents = anything;
            environment.profiles = listOf types.str;
            environment.pathsToLink = listOf types.str;
            environment.extraOutputsToInstall = listOf types.str;
            ids = anything;
            programs = anything;
            system.build = anything;
            system.checks.text = lines;
            system.stateVersion = lib.mkOption {
              type = types.int;
              default = 6;
            };
          };
      imports = lib.optionals (nix-darwin != null) (
        map (name: nix-darwin + "/modules/${name}") [
          "launchd"
          "system/activation-scripts.nix"
          "system/primary-user.nix"
          "users"
        ]
      );
    };
}
