#!/usr/bin/env bash
# The unit tests: they need Node.js, and nothing of npm.
source "$(dirname "$0")/tools.sh"
need node
exec node --test "$project"/test/*.test.js
