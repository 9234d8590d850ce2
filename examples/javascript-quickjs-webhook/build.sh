#!/usr/bin/env bash
# Makes the component: build.sh [FILE].
source "$(dirname "$0")/tools.sh"
npm_packages
starts "$tools/node_modules/.bin/componentize-qjs" --help

# The tool runs the program once while it builds it, on an engine that has no wasi:http and finds fault with an import of
# it. So wasi goes by another name until the component is made, and by a version that is not the engine's own.
rm -rf "$build/src" "$build/wit"
cp -rL "$project/src" "$project/wit" "$build/"
find "$build/src" "$build/wit" -type f -exec sed -i 's/wasi:/wasx:/g; s/0\.2\.12/0.2.10/g' {} +
"$tools/node_modules/.bin/componentize-qjs" --sync --wit "$build/wit" --world webhook \
  --js "$build/src/publisher.js" --module-root "$build/src" --output "$made"
sed -i 's/wasx:/wasi:/g' "$made"
