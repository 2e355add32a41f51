# SPDX-License-Identifier: MIT
# A derivation whose builder makes its outputs at once and then takes its time, so that it can be
# interrupted in the middle. Impure on purpose: what the builder does next is decided from
# outside, by files in `signals`, because an argument would make it another derivation.
#   kind     "ca" floating content-addressed, "ia" input-addressed, "fod" fixed-output
#   name     each build of a test has its own
#   outputs  names, one space between them
#   ticks    tenths of a second until it ends by itself; earlier once $signals/NAME.finish exists,
#            and badly once $signals/NAME.fail exists
#   outside  a directory that is not in the store, for a hostile builder's symlinks
{ kind, name, outputs ? "out", ticks ? "600", hostile ? "no", signals, outside }:
let
  # All that a build user may do to make its tree hard to remove.
  hostility = ''
    cd "$out"
    mkdir closed closed/in locked
    echo hidden > closed/in/file
    ln -s /etc to-etc
    ln -s /etc/passwd to-passwd
    ln -s ${outside} to-outside
    ln -s ${outside}/file to-file
    ln -s .. up
    mkfifo fifo
    echo odd > "$(printf 'new\nline\033[31m\377')"
    # Longer than any path may be, and deeper than Python recurses: -P, or the shell cannot follow.
    ten=deep/deep/deep/deep/deep/deep/deep/deep/deep/deep
    i=0
    while [ $i -lt 110 ]; do
      i=$((i + 1))
      mkdir -p $ten
      cd -P $ten
    done
    echo bottom > file
    cd "$out"
    chmod 000 closed/in closed locked
    cd /
  '';
  script = ''
    set -e
    for dir in $out $dev; do
      mkdir -p $dir
      echo half > $dir/scratch.$$
    done
    ${if hostile == "yes" then hostility else ""}
    echo "builder uid=$(id -u) pid=$$ out=$out dev=$dev." >&2
    i=0
    while [ $i -lt ${ticks} ] && ! [ -e ${signals}/${name}.finish ]; do
      ! [ -e ${signals}/${name}.fail ] || exit 1
      i=$((i + 1))
      echo $i > $out/scratch.$$
      sleep 0.1
    done
    for dir in $out $dev; do
      echo whole > $dir/result
      rm $dir/scratch.$$
    done
  '';
  recursive = { outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
  extra = {
    ia = { };
    ca = recursive // { __contentAddressed = true; };
    # Of a directory that holds `result` and nothing else.
    fod = recursive // { outputHash = "0nlxxmf17irmlh3bm9xbhaf5g80sznpziv6isx789kh5qycl3qdp"; };
  };
in
derivation ({
  inherit name;
  outputs = builtins.filter builtins.isString (builtins.split " " outputs);
  system = builtins.currentSystem;
  PATH = "/usr/bin:/bin";
  builder = "/bin/sh";
  args = [ "-c" script ];
} // extra.${kind})
