#!/usr/bin/env bash
# Makes the component: build.sh [FILE].
source "$(dirname "$0")/tools.sh"
npm_packages
starts "$tools/node_modules/.bin/tsc" --version
starts "$tools/node_modules/.bin/componentize-js" --version
"$tools/node_modules/.bin/tsc" --project "$project" --outDir "$build/js"
"$tools/node_modules/.bin/componentize-js" "$build/js/publisher.js" --wit "$project/wit" --world-name webhook \
  --out "$made"
