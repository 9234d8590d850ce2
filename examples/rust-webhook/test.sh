#!/usr/bin/env bash
# The unit tests, for this machine.
source "$(dirname "$0")/tools.sh"
need cargo cc
exec cargo test --manifest-path "$project/Cargo.toml" --target-dir "${CARGO_TARGET_DIR:-$build/cargo}"
