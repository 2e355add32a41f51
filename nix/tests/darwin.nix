# SPDX-License-Identifier: MIT
# A Mac that only builds, as nix-darwin makes it of the module: what CI activates on one of GitHub's
# (nix/tests/activate). It awaits its first run.
let
  pin = (builtins.fromJSON (builtins.readFile ../../flake.lock)).nodes.nixpkgs.locked;

  nixpkgs = fetchTarball {
    url = "https://github.com/${pin.owner}/${pin.repo}/archive/${pin.rev}.tar.gz";
    sha256 = pin.narHash;
  };

  # The last of its master that is for the release which flake.nix names.
  nix-darwin = fetchTarball {
    url = "https://github.com/nix-darwin/nix-darwin/archive/56c666e108467d87d13508936aade6d567f2a501.tar.gz";
    sha256 = "sha256-zXcwYQGCT6pzinK+1dBB2ekTVtfxGZAapb3Evdcu4fY=";
  };
in
(import nix-darwin {
  inherit nixpkgs;

  configuration =
    { pkgs, ... }:
    {
      imports = [ ../darwin-module.nix ];

      services.storewarden = {
        enable = true;
        package = pkgs.callPackage ../package.nix { };
      };

      # Nix, its daemon and nix.conf stay as they were installed.
      nix.enable = false;

      system.stateVersion = 6;
    };
}).system
