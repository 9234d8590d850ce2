#!/usr/bin/env bash
# Makes the component: build.sh [FILE]. What cargo makes for wasm32-wasip2 is one already: no other tool is needed.
source "$(dirname "$0")/tools.sh"
need cargo
exports=$("$project/toolchain.sh")
eval "$exports"

cargo=${CARGO_TARGET_DIR:-$build/cargo}
package=$(sed -n 's/^name = "\(.*\)"$/\1/p' "$project/Cargo.toml" | head -n 1)
env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u RUSTC_WRAPPER \
  cargo build --release --manifest-path "$project/Cargo.toml" --target wasm32-wasip2 --target-dir "$cargo"
cp "$cargo/wasm32-wasip2/release/${package//-/_}.wasm" "$made"
