#!/usr/bin/env bash
# The unit tests, on what tsc made of the sources.
source "$(dirname "$0")/../languages.sh"
npm_packages
"$tools/node_modules/.bin/tsc" --project "$example" --outDir "$tools/js"
cp "$example"/test/*.js "$tools/js/"
echo '{"type": "module"}' > "$tools/js/package.json"
exec node --test "$tools/js/"
