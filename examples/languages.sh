# What the build.sh of the languages share; they source it, with the file to make as their first argument.
#
# Toolchains are kept in target/toolchains/, pinned by the lock files of the examples. A script ends with the code 69 where
# its toolchain cannot be had on this machine: that is no fault of the example.
set -euo pipefail
example=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$example/../.." && pwd)
name=$(basename "$example")
# The contract: the only line that knows where it is.
contract=$repository/wit/0.1
toolchains=$repository/target/toolchains
tools=$toolchains/$name
mkdir -p "$tools"

unavailable() { echo "$name: its toolchain is not available: $*" >&2; exit 69; }

need() { "$repository/examples/need.sh" "$@" || unavailable "$* could not be installed"; }

# Whether the tools were installed from these files already; `installed` notes it.
is_installed() { cmp -s "$tools/installed" <(cat "$@"); }
installed() { cat "$@" > "$tools/installed"; }

# Installs what package-lock.json pins; the commands are in $tools/node_modules/.bin.
npm_packages() {
  local files=("$example/package.json" "$example/package-lock.json")
  is_installed "${files[@]}" && return
  need npm
  cp "${files[@]}" "$tools/"
  npm ci --prefix "$tools" --no-audit --no-fund --loglevel=error >&2 || unavailable "npm ci failed"
  installed "${files[@]}"
}

# Installs what requirements.txt pins; the commands are in $tools/bin.
pip_packages() {
  local file=$example/requirements.txt
  is_installed "$file" && return
  need python3
  python3 -c 'import ensurepip' 2>/dev/null || need python3-venv
  python3 -m venv "$tools" >&2 || unavailable "python3 -m venv failed"
  "$tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$file" >&2 ||
    unavailable "pip install failed"
  installed "$file"
}

# The world of wit/webhook.wit with all that it refers to, as a folder. The interfaces of wasi are those of the crate
# wasip2, which examples/Cargo.lock pins.
wit_folder() {
  local folder=$tools/wit wasi
  wasi=$(crate wasip2)/wit/deps
  rm -rf "$folder"
  mkdir -p "$folder/deps/outbox"
  cp "$repository/examples/wit/webhook.wit" "$folder/"
  cp "$contract"/*.wit "$folder/deps/outbox/"
  cp "$wasi"/*.wit "$folder/deps/"
  echo "$folder"
}

# Where cargo keeps the sources of a crate that examples/Cargo.lock pins.
crate() { # NAME
  cargo metadata --quiet --format-version 1 --locked --manifest-path "$repository/examples/Cargo.toml" |
    tr ',' '\n' | sed -n "s|^\"manifest_path\":\"\(.*/$1-[0-9][^/]*\)/Cargo.toml\"\$|\1|p"
}
