#!/usr/bin/env bash
# The unit tests: they need Node.js, and no package of npm.
source "$(dirname "$0")/tools.sh"
need_node
exec node --test "$project"/test/*.test.js
