# SPDX-License-Identifier: MIT
# The rest of `nix run .#setup`, after `program=`: a setup that writes outside of a directory of one's
# own is root's, so sudo is asked, by a path that its secure_path cannot hide.
for word in "$@"; do
    case $word in
    -h | --help | -n | --dry-run | --root | --root=*) exec "$program" setup "$@" ;;
    esac
done
if [ "$(id -u)" = 0 ]; then
    exec "$program" setup "$@"
elif command -v sudo >/dev/null; then
    echo "as root: sudo $program setup $*" >&2
    exec sudo "$program" setup "$@"
else
    echo "only root can set it up, and there is no sudo; as root: $program setup $*" >&2
    exit 1
fi
