# SPDX-License-Identifier: MIT
# The package without flakes, from the nixpkgs that flake.lock pins unless another is given.
let
  pin = (builtins.fromJSON (builtins.readFile ./flake.lock)).nodes.nixpkgs.locked;
in
{
  pkgs ? import (fetchTarball {
    url = "https://github.com/${pin.owner}/${pin.repo}/archive/${pin.rev}.tar.gz";
    sha256 = pin.narHash;
  }) { },
}:
pkgs.callPackage ./nix/package.nix { }
