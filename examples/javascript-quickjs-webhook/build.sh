#!/usr/bin/env bash
# Makes the component: build.sh FILE. See ../build.sh.
source "$(dirname "$0")/../languages.sh"
npm_packages
wit=$(wit_folder)

# The tool runs the program once while it builds it, on an engine that has no wasi:http and finds fault with an import of
# it. So wasi goes by another name until the component is made, and by a version that is not the engine's own.
rm -rf "$tools/src"
cp -r "$example/src" "$tools/src"
find "$wit" "$tools/src" -type f -exec sed -i 's/wasi:/wasx:/g; s/0\.2\.12/0.2.10/g' {} +
"$tools/node_modules/.bin/componentize-qjs" --sync --wit "$wit" --world webhook \
  --js "$tools/src/publisher.js" --module-root "$tools/src" --output "$1"
sed -i 's/wasx:/wasi:/g' "$1"
