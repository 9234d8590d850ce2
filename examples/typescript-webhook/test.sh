#!/usr/bin/env bash
# The unit tests, on what tsc made of the sources.
source "$(dirname "$0")/tools.sh"
npm_packages
"$tools/node_modules/.bin/tsc" --project "$project" --outDir "$build/js"
cp "$project"/test/*.js "$build/js/"
echo '{"type": "module"}' > "$build/js/package.json"
exec node --test "$build"/js/*.test.js
