#!/usr/bin/env bash
# Sees to it that what a script needs is there, and new enough:
#
#   need.sh [--look] THING[=VERSION]... [-- THING...]
#
# All of it is looked for first. What Debian has is installed in one go, and what is then still missing is told in one
# message, with what to do. What stands after `--` may be missing: it is told, and is no error. With --look nothing is
# installed and nothing said: the exit code tells.
#
#   cargo     and rustc; the `rust-version` of Cargo.toml unless a version is given
#   cc        a C compiler that makes a program
#   python3   with its SQLite
#   venv      what `python3 -m venv` needs
#   node      Node.js with npm, which tools.sh gets from PyPI where the machine has none that fits
#   wasm      a Rust toolchain for wasm32-wasip2, or Debian's packages that toolchain.sh makes one of
#   postgres  PostgreSQL's server, which tests start in a folder of their own
#   rustfmt, clippy, debootstrap
#   crates=FOLDER   the crates of its Cargo.lock, downloaded
#   room=GB         so much room in target/, where nothing was built yet
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

python_least=3.9
# Where no Cargo.toml says it.
rust_least=1.87
# What the JavaScript tools say of themselves: ^20.19 || ^22.13 || >=23.5.
node_text="Node.js 20.19, 22.13, 23.5 or newer, with npm"
security_archive="http://security.debian.org/debian-security"

say() { echo "need: $*" >&2; }
have() { command -v "$1" >/dev/null; }

main() {
  local look_only=no
  [ "${1:-}" != --look ] || { look_only=yes; shift; }
  things=("$@") failed=() unreached='' updated=no policy=''
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  survey
  [ ${#missing[@]} -gt 0 ] || [ ${#wanting[@]} -gt 0 ] || return 0
  [ $look_only = no ] || return 1
  [ ${#packages[@]} = 0 ] && [ ${#extras[@]} = 0 ] || ! have apt-get || install
  [ ${#missing[@]} = 0 ] && [ ${#wanting[@]} = 0 ] || report
}

# Looks for all things. `missing` and `wanting` say what is not there, needed or after `--`; `packages` and `extras` mend
# it on Debian, and `advice` says what else to do.
survey() {
  local thing list=missing
  missing=() wanting=() packages=() extras=() advice=()
  for thing in "${things[@]}"; do
    case $thing in
      --) list=wanting ;;
      *=*) "look_${thing%%=*}" "${thing#*=}" ;;
      *) "look_$thing" ;;
    esac
  done
  # shellcheck disable=SC2207 # words
  packages=($(unique ${packages[@]+"${packages[@]}"})) extras=($(unique ${extras[@]+"${extras[@]}"}))
  [ ${#packages[@]}${#extras[@]} = 00 ] || policy=$(apt-cache policy ${packages[@]+"${packages[@]}"} ${extras[@]+"${extras[@]}"} 2>/dev/null) || true
}

unique() { printf '%s\n' "$@" | awk '!seen[$0]++'; }

lacks() { # TEXT PACKAGE...
  if [ "$list" = missing ]; then
    missing+=("$1") packages+=("${@:2}")
  else
    wanting+=("$1") extras+=("${@:2}")
  fi
}

# --- what is looked for -------------------------------------------------------------------------------------------------

look_cargo() { # [VERSION]
  local tool said least=${1:-$(rust_version)}
  for tool in cargo rustc; do
    if [ -x "${HOME:-}/.cargo/bin/$tool" ] && ! have $tool; then
      lacks "$tool $least or newer: ~/.cargo/bin has one, and is not in PATH"
      advice+=("run: . ~/.cargo/env")
      return
    elif ! have $tool; then
      lacks "Rust $least or newer, with cargo: from https://rustup.rs, or Debian's cargo-web" cargo-web rustc-web
      return
    elif ! said=$($tool --version 2>&1); then
      lacks "$tool $least or newer: the one here does not start ($(last_line "$said"))"
      ! have rustup || advice+=("run: rustup $(rustup_mends "default stable")")
    elif ! at_least "$(version_in "$said")" "$least"; then
      lacks "$tool $least or newer: here is $(version_in "$said")"
      if have rustup; then advice+=("run: rustup $(rustup_mends "update stable && rustup default stable")")
      else advice+=("install Rust from https://rustup.rs"); fi
    fi
  done
}

# What rustup is to do: install the toolchain that rust-toolchain.toml names, or else this.
rustup_mends() { # COMMAND
  local pinned
  pinned=$(sed -n 's/^channel = "\(.*\)"$/\1/p' "$here/../rust-toolchain.toml" 2>/dev/null) || true
  echo "${pinned:+toolchain install }${pinned:-$1}"
}

# The `rust-version` of the nearest Cargo.toml: that of a publisher in Rust, or of the repository.
rust_version() {
  local found
  found=$(cat "$here/outbox-guest/Cargo.toml" "$here/../Cargo.toml" 2>/dev/null |
    sed -n 's/^rust-version = "\(.*\)"$/\1/p' | head -n 1) || true
  echo "${found:-$rust_least}"
}

look_cc() {
  local said
  have cc || { lacks "a C compiler (cc)" gcc libc6-dev; return; }
  said=$(cd "$scratch" && echo $'#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }' > a.c && cc a.c 2>&1) ||
    lacks "a C compiler that makes a program: the one here does not ($(first_line "$said"))" gcc libc6-dev
}

look_python3() { # [VERSION]
  local version least=${1:-$python_least}
  have python3 || { lacks "python3 $least or newer" python3; return; }
  if ! version=$(python3 -c 'import platform, sqlite3; print(platform.python_version())' 2>/dev/null); then
    lacks "python3 $least or newer with its module sqlite3: the one here has none" python3
  elif ! at_least "$version" "$least"; then
    lacks "python3 $least or newer: here is $version"
  fi
}

look_venv() {
  python3 -c 'import ensurepip, venv' 2>/dev/null || lacks "python3 with venv and pip" python3 python3-venv
}

look_node() {
  local version major minor
  version=$(node --version 2>/dev/null) || version=none
  IFS=. read -r major minor _ <<< "${version#v}"
  if ! node_fits "$major" "$minor"; then
    lacks "$node_text: here is $version"
  elif ! npm --version >/dev/null 2>&1; then
    lacks "$node_text: npm is missing, or does not start"
  fi
}

node_fits() { # MAJOR MINOR
  [[ "$1" =~ ^[0-9]+$ && "$2" =~ ^[0-9]+$ ]] || return 1
  case $1 in
    20) [ "$2" -ge 19 ] ;;
    22) [ "$2" -ge 13 ] ;;
    23) [ "$2" -ge 5 ] ;;
    *) [ "$1" -ge 24 ] ;;
  esac
}

look_wasm() {
  local names
  names=$("$here/toolchain.sh" --packages) ||
    { lacks "a Rust toolchain for wasm32-wasip2"; advice+=("run: rustup target add wasm32-wasip2"); return; }
  # What rustup could not do, it need not try again.
  export WASI_RUST_NO_RUSTUP=1
  # shellcheck disable=SC2086 # words
  [ -z "$names" ] || lacks "a Rust toolchain for wasm32-wasip2, which Debian's packages make" $names
}

# Those for this machine and for wasm32-wasip2: taken from the disk, or else downloaded.
look_crates() { # FOLDER
  has_certificates || { lacks "certificate authorities, for downloads" ca-certificates; return; }
  have cargo && have rustc || return 0
  if [ -z "$unreached" ]; then # once is enough, where each try may take its time
    fetch "$1" --offline >/dev/null && return
    say "downloading the crates of $1/Cargo.lock"
    unreached=$(fetch "$1" --quiet) && return
  fi
  lacks "crates: cargo cannot download them: $(last_line "$unreached")"
  advice+=("let cargo reach its registry, by a proxy (https_proxy) or a mirror (~/.cargo/config.toml); 'cargo fetch --locked' tries it")
}

fetch() { # FOLDER OPTION
  CARGO_NET_RETRY=1 CARGO_HTTP_TIMEOUT=20 cargo fetch "$2" --locked --manifest-path "$1/Cargo.toml" \
    --target "$(rustc -vV | sed -n 's/^host: //p')" --target wasm32-wasip2 2>&1
}

look_room() { # GB
  local free
  if ! mkdir -p target 2>/dev/null || [ ! -w target ]; then
    lacks "a folder target/ that $(id -un) can write to"
    advice+=("give the folder to $(id -un), or use a clone of its own: $PWD/target")
  fi
  [ ! -d target/release/deps ] || return 0
  free=$(df -Pk . | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4)
  [ "$free" -ge $(($1 * 1000000)) ] || lacks "$1 GB of room for target/: there are $((free / 1000000))"
}

has_certificates() {
  [ -n "${SSL_CERT_FILE:-}${CARGO_HTTP_CAINFO:-}" ] || ! have apt-get || [ -s /etc/ssl/certs/ca-certificates.crt ]
}

look_rustfmt() { cargo fmt --version >/dev/null 2>&1 || lacks_component rustfmt; }
look_clippy() { cargo clippy --version >/dev/null 2>&1 || lacks_component clippy; }

# Debian keeps its programs out of PATH.
look_postgres() {
  { have initdb && have postgres; } || compgen -G '/usr/lib/postgresql/*/bin/initdb' > /dev/null ||
    lacks "PostgreSQL's server (initdb and postgres)" postgresql
}

look_debootstrap() { have debootstrap || lacks debootstrap debootstrap; }

lacks_component() { # NAME
  lacks "$1"
  advice+=("run: rustup component add $1")
}

# --- versions and texts -------------------------------------------------------------------------------------------------

version_in() { [[ "$1" =~ [0-9]+\.[0-9]+(\.[0-9]+)? ]] && echo "${BASH_REMATCH[0]}"; }

at_least() { # VERSION LEAST
  local a b
  IFS=. read -r -a a <<< "$1"
  IFS=. read -r -a b <<< "$2"
  ((${a[0]:-0} > b[0] || ${a[0]:-0} == b[0] && ${a[1]:-0} >= ${b[1]:-0}))
}

first_line() { sed -n '/[^ ]/{p;q}' <<< "$1"; }
last_line() { grep '[^ ]' <<< "$1" | tail -n 1 | sed 's/^ *//'; }

# --- Debian's packages --------------------------------------------------------------------------------------------------

# Nothing is installed where that would not be all: then the message comes at once.
install() {
  local package more=()
  as_root true 2>/dev/null || return 0
  if apt update; then updated=yes; else note_failure; fi
  survey # some packages are called otherwise in the new lists
  for package in ${packages[@]+"${packages[@]}"}; do
    fits "$package" || return 0
  done
  for package in ${extras[@]+"${extras[@]}"}; do
    ! fits "$package" || more+=("$package")
  done
  install_all ${packages[@]+"${packages[@]}"} ${more[@]+"${more[@]}"} || install_all ${packages[@]+"${packages[@]}"} || note_failure
  survey
}

install_all() { # PACKAGE...
  [ $# -gt 0 ] || return 0
  say "installing Debian's packages: $*"
  apt install -y --no-install-recommends "$@"
}

apt() {
  apt_said=$scratch/apt
  as_root env DEBIAN_FRONTEND=noninteractive apt-get "$1" -q -o DPkg::Lock::Timeout=600 -o Acquire::Retries=1 \
    -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 "${@:2}" 2>&1 | tee "$apt_said" >&2 || return
  ! grep -q '^[EW]: .*\(Failed to fetch\|Could not\)' "$apt_said"
}

note_failure() {
  failed+=("$(grep '^[EW]: ' "$apt_said" | cut -c4- | head -n 1)")
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif ! have sudo; then return 1
  elif [ -t 0 ]; then sudo "$@"
  else sudo -n "$@"; fi
}

# Whether apt-get knows a version of the package that is new enough.
fits() { # PACKAGE
  local version
  version=$(sed -n "/^$1:\$/{n;n;s/^  Candidate: \([^(].*\)$/\1/p}" <<< "$policy")
  case $1 in
    cargo-web | rustc-web) [ -n "$version" ] && at_least "$(version_in "$version")" "$(rust_version)" ;;
    *) [ -n "$version" ] ;;
  esac
}

is_debian() { grep '^ID=debian$' /etc/os-release >/dev/null 2>&1; }

# Small installations leave it out.
lacks_security_archive() {
  is_debian && ! apt-get update --print-uris 2>/dev/null | grep 'dists/[a-z]*-security/' >/dev/null
}

# --- the message --------------------------------------------------------------------------------------------------------

report() {
  local commands
  {
    commands=$(commands ${packages[@]+"${packages[@]}"} ${extras[@]+"${extras[@]}"})
    part "this is missing:" ${missing[@]+"${missing[@]/#/- }"}
    part "without this, some tests are skipped:" ${wanting[@]+"${wanting[@]/#/- }"}
    part "apt-get says:" ${failed[@]+"${failed[@]}"}
    part "as root, run:" ${commands:+"$commands"}
    part "what to do:" ${advice[@]+"${advice[@]/#/- }"}
    echo
  } >&2
  [ ${#missing[@]} = 0 ]
}

part() { # HEAD TEXT...
  [ $# -gt 1 ] || return 0
  printf '\nneed: %s\n\n' "$1"
  unique "${@:2}" | sed 's/^/  /'
}

# What root is to run, for the packages that apt-get has, or may come to have: by new lists, or by the security archive.
commands() { # PACKAGE...
  local package names=() archive='' unfit=no
  [ $# -gt 0 ] && have apt-get || return 0
  ! lacks_security_archive || archive=$(. /etc/os-release && echo "deb $security_archive $VERSION_CODENAME-security main")
  for package in $(unique "$@"); do
    if fits "$package"; then
      names+=("$package")
    elif is_debian && { [ $updated = no ] || [ -n "$archive" ]; }; then
      names+=("$package") unfit=yes
    fi
  done
  [ ${#names[@]} -gt 0 ] || return 0
  [ $unfit = no ] || [ -z "$archive" ] || echo "echo '$archive' > /etc/apt/sources.list.d/security.list"
  echo "apt-get update"
  echo "apt-get install --no-install-recommends ${names[*]}"
}

main "$@"
