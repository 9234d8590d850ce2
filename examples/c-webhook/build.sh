#!/usr/bin/env bash
# Makes the component: build.sh FILE. See ../build.sh. The bindings are made by regenerate.sh, and committed.
source "$(dirname "$0")/../languages.sh"
pip_packages

# Its C compiler comes with a C library for wasm. Nothing of it that needs an operating system is used, so that the
# component imports the interfaces of its world and no others.
"$tools/bin/python-zig" cc --target=wasm32-wasi -mexec-model=reactor -std=gnu11 -Os -Wall -Wextra -Werror -Wno-unused-parameter \
  -s -Wl,-z,stack-size=65536 -o "$tools/core.wasm" \
  "$example"/src/*.c "$example/bindings/webhook.c" "$example/bindings/webhook_component_type.o"
"$tools/bin/wasm-tools" component new "$tools/core.wasm" -o "$1"
