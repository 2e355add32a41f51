# SPDX-License-Identifier: MIT
# What it is developed with, from nixpkgs alone: `make` finds its .venv made, where pip would fetch
# programs that do not run on NixOS.
{
  lib,
  mkShell,
  gnumake,
  python3Packages,
}:

let
  inherit (python3Packages) python requiredPythonModules;

  inherit (lib.importTOML ../pyproject.toml) project dependency-groups;

  # As they are called there, without their versions.
  named = requirement: lib.head (builtins.match "([A-Za-z0-9-]+).*" requirement);

  modules = map (requirement: python3Packages.${named requirement}) (
    project.dependencies ++ dependency-groups.dev
  );
in
mkShell {
  packages = [ gnumake ] ++ modules;

  shellHook = ''
    if [ -e nix/shell.nix ]; then
      interpreter=${python.interpreter}
      sitePackages=${python.sitePackages}
      source nix/install.sh
      make_workshop .venv ${toString (lib.remove python (requiredPythonModules modules))}
      unset interpreter sitePackages
    else
      echo "nix develop: not in a checkout of storewarden, so no .venv is made" >&2
    fi
  '';
}
