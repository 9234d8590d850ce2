#!/usr/bin/env bash
# The examples' own unit tests, each with its language's test runner, without a sandbox:
#
#   examples/test.sh [NAME...]
#
# If examples/build.sh skipped a language, because its toolchain cannot be had, it is skipped here too.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { # NAME FILE
  echo "test: SKIPPED $1: $(cat "$2")" >&2
  mkdir -p target/skipped
  echo "the unit tests of $1: $(cat "$2")" >> target/skipped/tests
}

for script in ${@:-$(cd examples && echo */test.sh)}; do
  name=${script%/test.sh}
  if [ -f "target/guests/$name.skipped" ]; then
    skip "$name" "target/guests/$name.skipped"
    continue
  fi
  echo "test: $name" >&2
  code=0
  OUTBOX_TOOLS=$PWD/target/toolchains/$name OUTBOX_BUILD=$PWD/target/guests-native/$name \
    CARGO_TARGET_DIR=$PWD/target/guests-native "examples/$name/test.sh" || code=$?
  [ $code != 69 ] || skip "$name" "target/guests-native/$name/unavailable"
  [ $code = 0 ] || [ $code = 69 ] || exit $code
done
