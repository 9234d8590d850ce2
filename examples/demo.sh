#!/usr/bin/env bash
# The whole way once: an application stores orders and appends an event for each in the same transaction; the relay calls
# a sandboxed publisher, which prints them.
set -euo pipefail
cd "$(dirname "$0")/.."

outbox=target/release/outbox
publisher=target/guests/rust-stdout.wasm
db=target/demo/app.db

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }

step "1. Build the publisher and the relay (minutes the first time, then seconds)"
examples/build.sh rust-stdout # first: it takes less, and what it needs is there or not
# The whole workspace chooses the features, so that `make test` compiles none of this again.
cargo build --release --workspace --locked --bin outbox

step "2. Make a database with an outbox"
rm -rf target/demo
mkdir -p target/demo
show $outbox init --db $db

step "3. An application places orders; the last one fails and is rolled back, with its event"
show python3 examples/app-python/app.py $db --orders 5 --fail

step "4. Publish three of them: what the sandboxed publisher prints is captured into the log"
show $outbox run --db $db --publisher $publisher --limit 3

step "5. What is left"
show $outbox status --db $db

step "6. Publish the rest"
show $outbox run --db $db --publisher $publisher
