# SPDX-License-Identifier: MIT
# nix-darwin. The jobs are read from the property lists that setup installs elsewhere. No Mac has run
# it yet.
{
  config,
  lib,
  ...
}:

let
  cfg = config.services.storewarden;

  # Where nobody's account is said, the watcher has one of its own.
  own = "_storewarden";
  hasOwn = cfg.user == own;

  # null where an account is declared without one.
  declared = config.users.users.${cfg.user}.home or null;
  home = if declared == null then "/Users/${cfg.user}" else declared;

  # The program's own default on macOS (src/storewarden/host/darwin.py), made for that account.
  ownPlace = "/private/var/db/storewarden/watch";

  log = if hasOwn then "${ownPlace}/storewarden.log" else "${home}/Library/Logs/storewarden.log";

  job = label: import ./plist.nix (builtins.readFile ../launchd/${label}.plist);

  python = "${cfg.package}/libexec/storewarden/bin/python3";

  # Only the first of such words: in the helper's job its module is called as the user is.
  replaceFirst =
    old: new: words:
    if words == [ ] then
      [ ]
    else if lib.head words == old then
      [ new ] ++ lib.tail words
    else
      [ (lib.head words) ] ++ replaceFirst old new (lib.tail words);

  words =
    one: replaced:
    lib.foldl (words: old: replaceFirst old replaced.${old} words) one.ProgramArguments (
      lib.attrNames replaced
    );

  # With the file named by its own name, a change of it starts the jobs anew.
  helper = job "org.storewarden.helper";
  helperWords =
    words helper {
      "/usr/bin/python3" = python;
      "/etc/storewarden/config.toml" = "${cfg.configFile}";
      storewarden = cfg.user;
    }
    ++ cfg.extraArgs;

  watcher = job "org.storewarden.watch";
  watcherWords =
    words watcher {
      "/usr/bin/python3" = python;
      "/var/log/storewarden.log" = log;
    }
    ++ [
      "--config"
      "${cfg.configFile}"
    ];

  # A change of the user's own needs no mkForce, and in a dictionary what it does not name stays:
  # nix-darwin writes `environment` and `path` of a job there as well. KeepAlive may also be no
  # dictionary. The label is never theirs, as nix-darwin's own default is none.
  asDefaults = lib.mapAttrs (
    key: value:
    if key == "Label" then
      value
    else if lib.isAttrs value && key != "KeepAlive" then
      lib.mapAttrs (_: lib.mkDefault) value
    else
      lib.mkDefault value
  );
in
{
  imports = [ ./options.nix ];

  options.services.storewarden.user = lib.mkOption {
    type = lib.types.str;
    default = if config.system.primaryUser == null then own else config.system.primaryUser;
    defaultText = lib.literalMD ''
      `system.primaryUser`, or `"_storewarden"` where that is null
    '';
    description = ''
      Who the watcher runs as, from the start of the machine on, whether anybody is logged in or not. The
      helper takes requests from that user alone. `_storewarden` is an account of its own, which is made:
      for a Mac that only builds.
    '';
  };

  config = lib.mkIf cfg.enable (
    lib.mkMerge [
      {
        # The jobs wait for /nix/store.
        services.storewarden.fixed = {
          runtime-dir = if hasOwn then null else "${home}/Library/Application Support/storewarden";
          socket = null;
          state-dir = null;
          store-dir = null;
        };

        # Their jobs have the labels of this module's, so what setup wrote could not be taken back
        # afterwards without stopping these.
        system.checks.text = ''
          if [[ -e /etc/storewarden/manifest.json ]]; then
            printf >&2 '\e[1;31merror: storewarden was set up without nix-darwin, aborting activation\e[0m\n'
            printf >&2 'What `storewarden setup` wrote is listed in /etc/storewarden/manifest.json.\n'
            printf >&2 'Take it back, then activate again; the audit log stays:\n'
            printf >&2 '\n'
            printf >&2 '    sudo %s setup --uninstall\n' '${lib.getExe cfg.package}'
            exit 2
          fi
        '';

        launchd.daemons.storewarden-helper.serviceConfig = asDefaults (
          helper // { ProgramArguments = helperWords; }
        );

        launchd.daemons.storewarden.serviceConfig = asDefaults (
          watcher
          // {
            ProgramArguments = watcherWords;
            UserName = cfg.user;
          }
        );
      }

      (lib.mkIf hasOwn {
        # It asks the Nix daemon which paths are valid.
        nix.settings = lib.mkIf config.nix.enable { extra-allowed-users = [ own ]; };

        users.knownUsers = [ own ];
        users.knownGroups = [ own ];
        users.groups.${own} = {
          gid = lib.mkDefault 536;
          description = "Watches the Nix store";
        };
        users.users.${own} = {
          uid = lib.mkDefault 536;
          gid = config.users.groups.${own}.gid;
          description = "Watches the Nix store";
        };

        system.activationScripts.launchd.text = lib.mkBefore ''
          install -d -m 0755 -o root -g wheel ${dirOf ownPlace}
          install -d -m 0755 -o ${own} -g ${own} ${ownPlace}
        '';
      })
    ]
  );

  meta.maintainers = import ./maintainers.nix { inherit lib; };
}
