#!/usr/bin/env bash
# Makes the component: build.sh FILE. See ../build.sh.
source "$(dirname "$0")/../languages.sh"
pip_packages
wit=$(wit_folder)
wasm_tools=$tools/bin/wasm-tools

# A library, whose functions are called once it is initialised, for wasi 0.1 ...
export GOOS=wasip1 GOARCH=wasm GOTOOLCHAIN=local GOFLAGS=-trimpath
"$tools/bin/go" build -C "$example" -buildmode=c-shared -ldflags='-s -w' -o "$tools/core.wasm" .

# ... which becomes a component with an adapter of its own.
mkdir -p "$wit/adapter/deps"
cp "$example/adapter.wit" "$wit/adapter/"
cp "$wit"/deps/*.wit "$wit/adapter/deps/"
"$wasm_tools" component embed "$wit/adapter" --world adapter "$example/adapter.wat" -o "$tools/wasi_snapshot_preview1.wasm"
"$wasm_tools" component embed "$wit" --world webhook "$tools/core.wasm" -o "$tools/embedded.wasm"
"$wasm_tools" component new "$tools/embedded.wasm" --adapt "$tools/wasi_snapshot_preview1.wasm" -o "$1"
