# What the scripts of a publisher share; they source it. What it says:
#
#   $project, $name   the folder of the publisher, and its name
#   $build            for what is made: OUTBOX_BUILD, or build/
#   $tools            for what is installed, pinned by the lock files: OUTBOX_TOOLS, or build/tools/
#   $made             the component to make: the script's first argument, or $build/NAME.wasm
#
# A script ends with the code 69 where its tools cannot be had on this machine: that is no fault of the publisher.
set -euo pipefail
project=$(cd "$(dirname "$0")" && pwd)
name=$(basename "$project")
build=${OUTBOX_BUILD:-$project/build}
tools=${OUTBOX_TOOLS:-$build/tools}
made=${1:-$build/$name.wasm}
mkdir -p "$build" "$tools"

unavailable() { echo "$name: its tools are not available: $*" >&2; exit 69; }

need() { "$project/need.sh" "$@" || unavailable "$* could not be installed"; }

# Whether the tools were installed from these files already; `installed` notes it. The publisher's own name is no matter.
is_installed() { cmp -s "$tools/installed" <(pins "$@"); }
installed() { pins "$@" > "$tools/installed"; }
pins() { sed "s/\"$name\"//" "$@"; }

# Installs what package-lock.json pins; the commands are in $tools/node_modules/.bin.
npm_packages() {
  local files=("$project/package.json" "$project/package-lock.json")
  is_installed "${files[@]}" && return
  need npm
  cp "${files[@]}" "$tools/"
  npm ci --prefix "$tools" --no-audit --no-fund --loglevel=error >&2 || unavailable "npm ci failed"
  installed "${files[@]}"
}

# Installs what requirements.txt pins; the commands are in $tools/bin.
pip_packages() {
  local file=$project/requirements.txt
  is_installed "$file" && return
  need python3
  python3 -c 'import ensurepip' 2>/dev/null || need python3-venv
  python3 -m venv "$tools" >&2 || unavailable "python3 -m venv failed"
  "$tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$file" >&2 ||
    unavailable "pip install failed"
  installed "$file"
}
