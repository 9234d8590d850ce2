#!/usr/bin/env bash
# The unit tests, for this machine.
source "$(dirname "$0")/tools.sh"
pip_packages
exec "$tools/bin/go" test -C "$project" .
