# SPDX-License-Identifier: MIT
# A build of a content-addressed output that is half done until a file lets it go on. Impure on
# purpose: an argument for that would make it another derivation.
{ name }:
derivation {
  inherit name;
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [
    "-ec"
    ''
      mkdir "$out"
      echo half > "$out/half"
      until [ -e /var/signals/${name} ]; do sleep 0.1; done
      rm "$out/half"
      echo whole > "$out/whole"
    ''
  ];
  PATH = "/run/current-system/sw/bin";
  __contentAddressed = true;
  outputHashMode = "recursive";
  outputHashAlgo = "sha256";
}
