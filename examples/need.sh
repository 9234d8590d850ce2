#!/usr/bin/env bash
# Sees to it that these commands are there, and installs Debian's packages for those that are not:
#
#   need.sh cargo cc python3 npm
set -euo pipefail

say() { echo "need: $*" >&2; }
die() { say "$*"; exit 1; }

packages=()
for name in "$@"; do
  command -v "$name" >/dev/null && continue
  case $name in
    cargo) die "cargo is missing: install Rust from https://rustup.rs" ;;
    cc) packages+=(gcc libc6-dev) ;;
    node) packages+=(nodejs) ;;
    *) packages+=("$name") ;;
  esac
done
[ ${#packages[@]} -gt 0 ] || exit 0
command -v apt-get >/dev/null || die "please install: ${packages[*]}"

sudo=
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || die "only root can install packages. As root, run: apt-get install ${packages[*]}"
  sudo=sudo
fi
say "installing Debian's packages: ${packages[*]}"
$sudo apt-get update -q -o DPkg::Lock::Timeout=600 >&2
$sudo env DEBIAN_FRONTEND=noninteractive \
  apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=600 "${packages[@]}" >&2
