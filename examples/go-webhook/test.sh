#!/usr/bin/env bash
# The unit tests, for this machine.
source "$(dirname "$0")/../languages.sh"
pip_packages
exec "$tools/bin/go" test -C "$example" ./...
