# SPDX-License-Identifier: MIT
{
  description = "Finds what interrupted builds stranded in a Nix store, proves it dead, and removes it";

  # The last release with x86_64-darwin.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;

      # As far as this nixpkgs still has them.
      systems = lib.intersectLists lib.systems.flakeExposed [
        "x86_64-linux"
        "aarch64-linux"
        "aarch64-darwin"
        "x86_64-darwin"
      ];

      forEachSystem = perSystem: lib.genAttrs systems (system: perSystem nixpkgs.legacyPackages.${system});
    in
    {
      overlays.default = final: _: { storewarden = final.callPackage ./nix/package.nix { }; };

      nixosModules = rec {
        storewarden = ./nix/module.nix;
        default = storewarden;
      };

      darwinModules = rec {
        storewarden = ./nix/darwin-module.nix;
        default = storewarden;
      };

      packages = forEachSystem (pkgs: rec {
        storewarden = pkgs.callPackage ./nix/package.nix { };
        default = storewarden;
      });

      apps = forEachSystem (
        pkgs:
        let
          package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        in
        {
          default = {
            type = "app";
            program = lib.getExe package;
            meta.description = "Look after a Nix store";
          };
          setup = {
            type = "app";
            program = "${pkgs.writeShellScript "storewarden-setup" (
              ''
                program=${lib.getExe package}
              ''
              + builtins.readFile ./nix/setup.sh
            )}";
            meta.description = "Set the service up where no NixOS or nix-darwin does";
          };
        }
      );

      checks = forEachSystem (
        pkgs:
        let
          package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        in
        { inherit package; } // package.tests
      );

      devShells = forEachSystem (pkgs: {
        default = pkgs.callPackage ./nix/shell.nix { };
      });

      formatter = forEachSystem (pkgs: pkgs.nixfmt-tree);
    };
}
