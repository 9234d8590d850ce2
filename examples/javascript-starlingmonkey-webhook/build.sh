#!/usr/bin/env bash
# Makes the component: build.sh FILE. See ../build.sh.
source "$(dirname "$0")/../languages.sh"
npm_packages
"$tools/node_modules/.bin/componentize-js" "$example/src/publisher.js" --wit "$(wit_folder)" --world-name fetching-webhook \
  --out "$1"
