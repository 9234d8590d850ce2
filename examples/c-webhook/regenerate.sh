#!/usr/bin/env bash
# Makes bindings/ anew, after a change of the world: regenerate.sh. It compiles wit-bindgen first, for minutes.
source "$(dirname "$0")/tools.sh"
need cargo
cargo install --locked --root "$tools" --no-default-features --features c --version 0.63.0 wit-bindgen-cli
"$tools/bin/wit-bindgen" c "$project/wit" --world webhook --out-dir "$project/bindings"
