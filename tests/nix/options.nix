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
in
{
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
      options = {
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
        users.users = anything;
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
}
