#!/usr/bin/env bash
# Builds the publishers of this repository (examples/rust-* and tests/guests/*) as components:
#
#   examples/build.sh [NAME...]     target/guests/NAME.wasm, for all of them or for those named
#
# The toolchain is chosen, and where there is none installed, by toolchain.sh. What cargo makes for wasm32-wasip2
# is a component already: no other tool is needed. Nothing is built twice; an unchanged file is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."

target=wasm32-wasip2
# Of their own: sharing a target directory with the relay's compiler would rebuild both, each time.
build=target/guests-build
components=target/guests

main() {
  local names=("$@") exports
  [ $# -gt 0 ] || names=($(all_names))
  exports=$(examples/toolchain.sh)
  eval "$exports"
  compile "${names[@]}"
  mkdir -p "$components"
  local name
  for name in "${names[@]}"; do
    place "$build/$target/release/${name//-/_}.wasm" "$components/$name.wasm"
  done
  # No component, for the tests of what a relay refuses: the smallest core module, a header without sections.
  printf '\0asm\1\0\0\0' > "$build/core-module.wasm"
  place "$build/core-module.wasm" "$components/core-module.wasm"
}

all_names() {
  local manifest
  for manifest in examples/rust-*/Cargo.toml tests/guests/*/Cargo.toml; do
    basename "$(dirname "$manifest")"
  done
}

compile() {
  echo "build: ${*}" >&2
  env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u RUSTC_WRAPPER \
    cargo build --release --locked --manifest-path examples/Cargo.toml --target "$target" --target-dir "$build" \
    "${@/#/--package=}"
}

# Replaced in one step, for relays and tests that may be reading it; and only when it changed, for those that watch it.
place() { # FROM TO
  cmp -s "$1" "$2" && return
  cp "$1" "$2.new"
  mv "$2.new" "$2"
  echo "build: $2 ($(wc -c < "$2") bytes)" >&2
}

main "$@"
