#!/usr/bin/env bash
# The unit tests: they need Python 3.11 or newer, and nothing of PyPI.
source "$(dirname "$0")/tools.sh"
need python3=3.11
cd "$project" && exec python3 -B -m unittest
