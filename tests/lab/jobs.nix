# SPDX-License-Identifier: MIT
# Derivations of one script, one for each of `names` (a space between them): what a test needs that
# is not in ../real/slow.nix. Floating content-addressed, or of another kind; `tag` makes another
# derivation of the same.
{ names, script, kind ? "ca", tag ? "" }:
let
  recursive = { outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
  extra = {
    ia = { };
    ca = recursive // { __contentAddressed = true; };
    impure = recursive // { __impure = true; };
  };
in
map
  (name: derivation ({
    inherit name tag;
    system = builtins.currentSystem;
    PATH = "/usr/bin:/bin";
    builder = "/bin/sh";
    args = [ "-c" script ];
  } // extra.${kind}))
  (builtins.filter builtins.isString (builtins.split " " names))
