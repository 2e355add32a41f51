# SPDX-License-Identifier: MIT
# Sourced by package.nix, in the source's top directory, with: out, interpreter (the path of a
# Python), sitePackages (as lib/python3.13/site-packages), platform (a kernel's name).

# Make $1 an environment whose interpreter imports what lies in the packages $2... and the standard
# library, and nothing else.
#
# It is a virtual environment's, because nixpkgs' Python runs a sitecustomize that imports from
# wherever NIX_PYTHONPATH points, also under -I; in an environment without system site-packages that
# file is not found.
make_environment() {
    local environment=$1 place module name
    shift
    mkdir -p "$environment/bin" "$environment/$sitePackages"
    ln -s "$interpreter" "$environment/bin/python3"
    printf 'home = %s\ninclude-system-site-packages = false\n' "${interpreter%/*}" \
        >"$environment/pyvenv.cfg"
    for place in "$@"; do
        for module in "$place/$sitePackages"/*; do
            name=${module##*/}
            if [ "$name" != __pycache__ ]; then
                ln -s "$module" "$environment/$sitePackages/$name"
            fi
        done
    done
}

# The command for people runs in that environment as well: it may be root who calls it. With -I no
# variable of the caller's (PYTHONPATH, PYTHONSTARTUP …), no file in the directory that it is called
# in, and no package in the caller's home is imported; a wrapper of nixpkgs has no -I.
install_launcher() {
    mkdir -p "$out/bin"
    rm -f "$out/bin/storewarden"
    cat >"$out/bin/storewarden" <<LAUNCHER
#!$out/libexec/storewarden/bin/python3 -I
import sys

from storewarden.cli import main

sys.exit(main())
LAUNCHER
    chmod 0755 "$out/bin/storewarden"
}

# The units as they are shipped, but for the interpreter; drop-ins where they are not in force.
install_units() {
    local file
    mkdir -p "$out/lib/systemd/system" "$out/lib/sysusers.d" "$out/share/storewarden/drop-ins"
    cp systemd/*.service systemd/*.socket "$out/lib/systemd/system"
    cp systemd/drop-ins/*.conf "$out/share/storewarden/drop-ins"
    cp systemd/storewarden.sysusers "$out/lib/sysusers.d/storewarden.conf"
    for file in "$out"/lib/systemd/system/* "$out"/share/storewarden/drop-ins/*; do
        sed -i "s|/usr/bin/python3|$out/libexec/storewarden/bin/python3|g" "$file"
    done
}

# What services.storewarden.prevent has Nix run.
install_hook() {
    local python=$out/libexec/storewarden/bin/python3
    local write='import sys; from storewarden.prevention import hook_text as text; '
    write+='print(text(*sys.argv[1:], None), end="")'
    "$python" -I -B -c "$write" "$python" "$out/$sitePackages/storewarden" \
        /etc/storewarden/config.toml >"$out/libexec/storewarden/pre-build-hook"
    chmod 0755 "$out/libexec/storewarden/pre-build-hook"
}

install_all() {
    make_environment "$out/libexec/storewarden" "$out" "$@"
    install_launcher
    install_hook
    if [ "$platform" = linux ]; then
        install_units
    fi
}

# Make $1 what `make` would make it in a checkout, with what lies in the packages $2... and the
# checkout's own code.
make_workshop() {
    local environment=$1 place program
    shift
    rm -rf "$environment"
    make_environment "$environment" "$@"
    ln -s "$PWD/src/storewarden" "$environment/$sitePackages/storewarden"
    ln -s python3 "$environment/bin/python"
    for place in "$@"; do
        for program in "$place"/bin/*; do
            [ ! -e "$program" ] || ln -sf "$program" "$environment/bin"
        done
    done
    # These two must see the checkout's own code; nixpkgs' programs see their own alone.
    install_program "$environment" storewarden storewarden.cli main
    install_program "$environment" lint-imports importlinter.cli lint_imports_command
    touch "$environment/.program" "$environment/.ready"
}

# Write a program of the environment $1, called $2, that calls $4 of the module $3.
install_program() {
    local program=$1/bin/$2
    rm -f "$program"
    printf '#!%s/bin/python3\nimport sys\n\nfrom %s import %s\n\nsys.exit(%s())\n' \
        "$PWD/$1" "$3" "$4" "$4" >"$program"
    chmod 0755 "$program"
}
