# SPDX-License-Identifier: MIT
# What can be said on NixOS and on nix-darwin alike, and the file that it becomes.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) types;

  cfg = config.services.storewarden;

  format = pkgs.formats.toml { };

  # No default stands here a second time: what is null is left out, and the program's own holds.
  setting =
    type: description: example:
    lib.mkOption {
      type = types.nullOr type;
      default = null;
      inherit description example;
    };

  interval = types.strMatching "[0-9]{1,9}[smhd]?";

  # As far as it can stand in a unit, where a space would end it.
  word = "[A-Za-z0-9._+-]+";
  absolutePath = types.strMatching "(/${word})+";

  canRun = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
in
{
  options.services.storewarden = {
    enable = lib.mkEnableOption "storewarden, which removes what interrupted builds strand in the Nix store";

    # The one of an overlay comes first, but none is needed.
    package =
      lib.mkPackageOption (
        { storewarden = pkgs.callPackage ./package.nix { }; } // pkgs
      ) "storewarden" { }
      // {
        defaultText = lib.literalExpression "pkgs.storewarden or (pkgs.callPackage ./package.nix { })";
      };

    settings = lib.mkOption {
      default = { };
      description = ''
        What {file}`/etc/storewarden/config.toml` says. It is checked by
        {command}`storewarden check-config` when the system is built.
        What is null, or not said, is storewarden's own default.
      '';
      example = {
        mode = "report";
        sweep-interval = "1h";
      };
      type = types.submodule {
        freeformType = format.type;

        options = {
          mode = setting (types.enum [
            "repair"
            "report"
          ]) "Whether what is proved dead is removed, or only told of." "report";

          kinds =
            setting
              (types.listOf (
                types.enum [
                  "chroot"
                  "lock"
                  "output"
                ]
              ))
              "The kinds of entries that are removed. All kinds are reported."
              [
                "lock"
                "output"
              ];

          min-age = setting interval "How long an entry must have been left alone before it is removed." "30s";

          sweep-interval = setting interval ''
            How long it takes at most until the whole store is looked at again, whatever has been
            noticed meanwhile.
          '' "1h";

          poll-interval = setting interval "How often to look for changes where the system does not tell of them." "5s";

          max-removals =
            setting types.ints.unsigned
              "A sweep that would remove more entries than this removes none, and says so."
              100;

          build-group = setting (types.strMatching word) ''
            The group of Nix's build users, if {option}`nix.settings.build-users-group` is another
            than `nixbld`.
          '' "nixbld";

          nix = lib.mkOption {
            type = types.nullOr absolutePath;
            default = if config.nix.enable then lib.getExe' config.nix.package "nix" else null;
            defaultText = lib.literalExpression ''
              if config.nix.enable then lib.getExe' config.nix.package "nix" else null
            '';
            example = "/nix/var/nix/profiles/default/bin/nix";
            description = ''
              The program that is asked whether a path is valid. With null, as where Determinate
              Nix looks after itself ({option}`nix.enable` is false), it is the first that exists of
              {file}`/nix/var/nix/profiles/default/bin/nix` and
              {file}`/run/current-system/sw/bin/nix`.
            '';
          };

          metrics-listen = setting (types.strMatching ".+:[0-9]{1,5}") ''
            The address that Prometheus can ask for metrics. The service has no network unless this
            is set. The firewall is not opened.
          '' "127.0.0.1:9913";

          metrics-textfile = setting (types.strMatching "(/${word}){2,}") ''
            A file for the textfile collector of the node exporter, in a directory below the root.
            The user of the service must be able to write there.
          '' "/var/lib/prometheus/node-exporter/storewarden.prom";
        };
      };
    };

    configFile = lib.mkOption {
      type = types.path;
      readOnly = true;
      internal = true;
      description = "The settings as the program reads them, checked by it.";
    };
  };

  config.services.storewarden.configFile =
    pkgs.runCommandLocal "storewarden.toml"
      {
        unchecked = format.generate "storewarden-unchecked.toml" (
          lib.filterAttrs (_: value: value != null) cfg.settings
        );
      }
      ''
        ${lib.optionalString canRun ''${lib.getExe cfg.package} check-config "$unchecked"''}
        cp "$unchecked" "$out"
      '';
}
