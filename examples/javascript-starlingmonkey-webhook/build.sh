#!/usr/bin/env bash
# Makes the component: build.sh [FILE].
source "$(dirname "$0")/tools.sh"
npm_packages
starts "$tools/node_modules/.bin/componentize-js" --version
"$tools/node_modules/.bin/componentize-js" "$project/src/publisher.js" --wit "$project/wit" --world-name webhook \
  --out "$made"
