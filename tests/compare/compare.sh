#!/usr/bin/env bash
# The relay beside other ways to drain an outbox in SQLite: see compare.py. Installs what requirements*.txt pin into
# target/toolchains/compare. honker is built from source; where that fails it is left out, loudly.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
tools=$repository/target/toolchains/compare

install() { # FILE PIP-OPTION...
  local file=$1
  cmp -s "$tools/installed-$file" "$here/$file" && return
  "$tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$here/$file" "${@:2}" >&2 || return
  cp "$here/$file" "$tools/installed-$file"
}

"$repository/examples/need.sh" cc python3 venv
[ -x "$tools/bin/python" ] || python3 -m venv "$tools"
install requirements.txt
# Its own Cargo.lock pins the crates that it is built from.
MATURIN_PEP517_ARGS=--locked PATH=$tools/bin:$PATH install requirements-honker.txt --no-build-isolation ||
  echo "compare: honker is LEFT OUT: it cannot be built on this machine" >&2
exec "$tools/bin/python" "$here/compare.py" "$@"
