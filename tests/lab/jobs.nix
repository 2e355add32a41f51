# SPDX-License-Identifier: MIT
# Floating content-addressed derivations of one script, one for each of `names` (a space between
# them): what a test needs that is not in ../real/slow.nix.
{ names, script }:
map
  (name: derivation {
    inherit name;
    system = builtins.currentSystem;
    PATH = "/usr/bin:/bin";
    builder = "/bin/sh";
    args = [ "-c" script ];
    __contentAddressed = true;
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
  })
  (builtins.filter builtins.isString (builtins.split " " names))
