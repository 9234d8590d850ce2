#!/usr/bin/env bash
# Reports at the end what was skipped and why: skipped.sh tests. Each skip is a line of a file in target/skipped/.
set -euo pipefail
cd "$(dirname "$0")/.."

lines=$(cd target/skipped 2>/dev/null && cat "$@" 2>/dev/null | sort -u) || true
if [ -z "$lines" ]; then
  echo "Nothing was skipped."
else
  printf '\nSKIPPED, and therefore not tested:\n\n'
  sed 's/^/  - /' <<< "$lines"
fi
