#!/usr/bin/env bash
# Makes the component: build.sh [FILE]. The bindings are made by regenerate.sh, and committed.
source "$(dirname "$0")/tools.sh"
pip_packages
starts "$tools/bin/python-zig" version
starts "$tools/bin/wasm-tools" --version

# Its C compiler comes with a C library for wasm. Nothing of it that needs an operating system is used, so that the
# component imports the interfaces of its world and no others.
"$tools/bin/python-zig" cc --target=wasm32-wasi -mexec-model=reactor -std=gnu11 -Os -Wall -Wextra -Werror -Wno-unused-parameter \
  -s -Wl,-z,stack-size=65536 -o "$build/core.wasm" \
  "$project"/src/*.c "$project/bindings/webhook.c" "$project/bindings/webhook_component_type.o"
"$tools/bin/wasm-tools" component new "$build/core.wasm" -o "$made"
