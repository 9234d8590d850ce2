#!/usr/bin/env bash
# The examples' own unit tests, each with its language's test runner, without a sandbox:
#
#   examples/test.sh [NAME...]
#
# A language that examples/build.sh skipped, since its toolchain cannot be had, is skipped here too.
set -euo pipefail
cd "$(dirname "$0")/.."

for script in ${@:-$(cd examples && echo */test.sh)}; do
  name=${script%/test.sh}
  if [ -f "target/guests/$name.skipped" ]; then
    echo "test: SKIPPED $name: $(cat "target/guests/$name.skipped")" >&2
    continue
  fi
  echo "test: $name" >&2
  OUTBOX_TOOLS=$PWD/target/toolchains/$name OUTBOX_BUILD=$PWD/target/guests-native/$name \
    CARGO_TARGET_DIR=$PWD/target/guests-native "examples/$name/test.sh"
done
