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

  # Defaults are the program's own (src/storewarden/config.py), and tests compare them.
  setting =
    type: default: description:
    lib.mkOption { inherit type default description; };

  # What the program leaves out by default; null leaves it out here.
  optional =
    type: example: description:
    lib.mkOption {
      type = types.nullOr type;
      default = null;
      inherit example description;
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
        What {file}`/etc/storewarden/config.toml` says, which watcher and helper both read. It is
        checked by {command}`storewarden check-config` when the system is built. What is null is left
        out.
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
          ]) "repair" "Whether what is proved dead is removed, or only told of.";

          kinds = setting (types.listOf (
            types.enum [
              "chroot"
              "lock"
              "output"
            ]
          )) [ "lock" "output" ] "The kinds of entries that are removed. All kinds are reported.";

          min-age = optional interval "30s" ''
            How long an entry must have been left alone before it is removed. With null it is `"2s"`,
            and `"0"` where the locks that cover the entry are known.
          '';

          sweep-interval = setting interval "15m" ''
            How long it takes at most until the whole store is looked at again, whatever has been
            noticed meanwhile.
          '';

          poll-interval =
            setting interval "2s"
              "How often to look for changes where the system does not tell of them.";

          max-removals =
            setting types.ints.unsigned 1000
              "A sweep that would remove more entries than this removes none, and says so.";

          build-group = setting (types.strMatching word) "nixbld" ''
            The group of Nix's build users, as {option}`nix.settings.build-users-group` has it.
          '';

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

          metrics-listen = optional (types.strMatching ".+:[0-9]{1,5}") "127.0.0.1:9913" ''
            The address that Prometheus can ask for metrics. The service has no network unless this
            is set. The firewall is not opened.
          '';

          metrics-textfile =
            optional (types.strMatching "(/${word}){2,}") "/var/lib/prometheus/node-exporter/storewarden.prom"
              ''
                A file for the textfile collector of the node exporter, in a directory below the root.
                The user of the service must be able to write there.
              '';
        };
      };
    };

    prevent = lib.mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether Nix removes what an interrupted build left in the way of the next one before that
        begins, too: by {option}`nix.settings.pre-build-hook`. On Linux Nix runs it for sandboxed
        builds alone, on macOS for all, from Nix 2.30 on.
      '';
    };

    extraArgs = lib.mkOption {
      # None of these letters needs quoting, in a unit or a property list.
      type = types.listOf (types.strMatching "[A-Za-z0-9._+/=:,@-]+");
      default = [ ];
      example = [
        "--min-age"
        "60"
      ];
      description = ''
        More arguments of the helper, as in {manpage}`storewarden-helper(8)`. They win over
        {option}`services.storewarden.settings`. The watcher takes none: all that it can be told is in
        the settings.
      '';
    };

    fixed = lib.mkOption {
      type = types.attrsOf (types.nullOr types.str);
      internal = true;
      description = ''
        Settings that units or jobs depend on, which cannot be set therefore: what the file says, or
        null for the program's own default.
      '';
    };

    configFile = lib.mkOption {
      type = types.path;
      readOnly = true;
      internal = true;
      description = "The settings as the program reads them, checked by it.";
    };
  };

  # Named by the package's own path, so it is there for as long as the setting is.
  config.nix.settings = lib.mkIf (cfg.enable && cfg.prevent && config.nix.enable) {
    pre-build-hook = "${cfg.package}/libexec/storewarden/pre-build-hook";
  };

  config.services.storewarden.configFile =
    pkgs.runCommandLocal "storewarden.toml"
      {
        unchecked = format.generate "storewarden-unchecked.toml" (
          lib.filterAttrs (_: value: value != null) (cfg.settings // cfg.fixed)
        );
      }
      ''
        ${lib.optionalString canRun ''${lib.getExe cfg.package} check-config "$unchecked"''}
        cp "$unchecked" "$out"
      '';

  config.assertions = lib.mkIf cfg.enable (
    map (key: {
      assertion = !cfg.settings ? ${key};
      message = "services.storewarden.settings.${key} cannot be set: the service depends on what it is.";
    }) (lib.attrNames cfg.fixed)
    ++ [
      {
        assertion = cfg.prevent -> config.nix.enable;
        message = ''
          services.storewarden.prevent needs nix.settings, which is not written without nix.enable. Set
          pre-build-hook where your Nix reads its settings, such as nix.custom.conf, to
          ${cfg.package}/libexec/storewarden/pre-build-hook and leave services.storewarden.prevent off.
        '';
      }
    ]
  );

  config.environment = lib.mkIf cfg.enable {
    systemPackages = [ cfg.package ];
    etc."storewarden/config.toml".source = cfg.configFile;
  };
}
