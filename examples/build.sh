#!/usr/bin/env bash
# Builds the publishers of this repository (examples/*-webhook, examples/rust-* and tests/guests/*) as components:
#
#   examples/build.sh [NAME...]     target/guests/NAME.wasm, for all of them or for those named
#
# toolchain.sh chooses Rust's toolchain, or installs one. cargo makes components for wasm32-wasip2: no other tool is
# needed. Each webhook has a build.sh of its own. Nothing is built twice; an unchanged file is left alone. When all are
# built, a language whose toolchain cannot be had is skipped: here, in the tests, and at the end of `make test`, which
# report it.
set -euo pipefail
cd "$(dirname "$0")/.."

target=wasm32-wasip2
# A target directory of their own: sharing one with the relay's compiler would rebuild both, each time.
build=target/guests-build
components=target/guests

main() {
  local name rust=() others=()
  for name in $([ $# -gt 0 ] && echo "$@" || all_names); do
    if [ -x "examples/$name/build.sh" ]; then others+=("$name"); else rust+=("$name"); fi
  done
  mkdir -p "$components"
  [ ${#rust[@]} = 0 ] || build_rust "${rust[@]}"
  for name in ${others[@]+"${others[@]}"}; do
    build_other "$name" $#
  done
}

all_names() {
  local file
  for file in examples/rust-bulk/Cargo.toml examples/rust-stdout/Cargo.toml tests/guests/*/Cargo.toml examples/*/build.sh; do
    basename "$(dirname "$file")"
  done
}

build_rust() {
  local name exports
  exports=$(examples/toolchain.sh)
  eval "$exports"
  compile "$@"
  for name in "$@"; do
    place "$build/$target/release/${name//-/_}.wasm" "$components/$name.wasm"
  done
  # For tests of what a relay refuses: the smallest core module, a header without sections, which is no component.
  printf '\0asm\1\0\0\0' > "$build/core-module.wasm"
  place "$build/core-module.wasm" "$components/core-module.wasm"
}

# Uses the example's own build.sh, which ends with 69 if there is no toolchain.
build_other() { # NAME WHETHER_ASKED_FOR
  local name=$1 made=$components/$1.wasm draft=$build/$1/made.wasm code=0
  is_fresh "$name" && return
  echo "build: $name" >&2
  OUTBOX_TOOLS=$PWD/target/toolchains/$name OUTBOX_BUILD=$PWD/$build/$name CARGO_TARGET_DIR=$PWD/$build \
    "examples/$name/build.sh" "$PWD/$draft" >&2 || code=$?
  if [ "$code" = 0 ]; then
    rm -f "$components/$name.skipped"
    place "$draft" "$made"
    touch "$made"
  elif [ "$code" = 69 ] && [ "$2" = 0 ]; then
    rm -f "$made"
    cp "$build/$name/unavailable" "$components/$name.skipped"
    echo "build: SKIPPED $name: $(cat "$components/$name.skipped")" >&2
  else
    return "$code"
  fi
}

# Whether no source of a component is newer than the component.
is_fresh() { # NAME
  local made=$components/$1.wasm
  [ -f "$made" ] && [ -z "$(find -L "examples/$1" -newer "$made" -type f \
    -not -name '*.md' -not -path '*/test*' -not -path '*/try/*' -not -path '*/build/*' -print -quit)" ]
}

compile() {
  echo "build: ${*}" >&2
  env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u RUSTC_WRAPPER \
    cargo build --release --locked --manifest-path examples/Cargo.toml --target "$target" --target-dir "$build" \
    "${@/#/--package=}"
}

# Replaces a file in one step, since relays and tests may be reading it; and only if it changed, since some watch it.
place() { # FROM TO
  cmp -s "$1" "$2" && return
  cp "$1" "$2.new"
  mv "$2.new" "$2"
  echo "build: $2 ($(wc -c < "$2") bytes)" >&2
}

main "$@"
