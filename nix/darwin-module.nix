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

  user = toString config.system.primaryUser;

  # Its default cannot be asked for while nobody is said; the assertion below says to.
  home = if config.system.primaryUser == null then "" else config.system.primaryUserHome;

  job = label: import ./plist.nix (builtins.readFile ../launchd/${label}.plist);

  python = "${cfg.package}/libexec/storewarden/bin/python3";

  replaceFirst =
    old: new: words:
    if words == [ ] then
      [ ]
    else if lib.head words == old then
      [ new ] ++ lib.tail words
    else
      [ (lib.head words) ] ++ replaceFirst old new (lib.tail words);

  words =
    one:
    lib.pipe one.ProgramArguments [
      (replaceFirst "/usr/bin/python3" python)
      (replaceFirst "/etc/storewarden/config.toml" "${cfg.configFile}")
    ];

  helper = job "org.storewarden.helper";
  watcher = job "org.storewarden.watch";

  # A change of the user's own needs no mkForce; the label is never theirs, as nix-darwin's own default
  # is none.
  asDefaults = lib.mapAttrs (key: if key == "Label" then lib.id else lib.mkDefault);
in
{
  imports = [ ./options.nix ];

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = config.system.primaryUser != null;
        message = ''
          services.storewarden watches as one user, and its helper takes requests from that user alone.
          Say who it is: system.primaryUser = "you";
        '';
      }
    ];

    environment.systemPackages = [ cfg.package ];
    environment.etc."storewarden/config.toml".source = cfg.configFile;

    services.storewarden.settings.runtime-dir = "${home}/Library/Application Support/storewarden";

    # With the file named by its own name, a change of it starts the jobs anew.
    launchd.daemons.storewarden-helper.serviceConfig = asDefaults (
      helper // { ProgramArguments = replaceFirst "storewarden" user (words helper); }
    );

    launchd.daemons.storewarden.serviceConfig = asDefaults (
      watcher
      // {
        ProgramArguments =
          replaceFirst "/var/log/storewarden.log" "${home}/Library/Logs/storewarden.log" (words watcher)
          ++ [
            "--config"
            "${cfg.configFile}"
          ];
        UserName = user;
      }
    );
  };
}
