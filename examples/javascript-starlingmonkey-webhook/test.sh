#!/usr/bin/env bash
# The unit tests: they need Node.js, and nothing of npm.
cd "$(dirname "$0")" && exec node --test test/
