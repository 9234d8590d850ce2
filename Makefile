# `make demo` shows it, `make test` checks it. Both install what they need and say what that is.
SHELL := /bin/bash
CARGO ?= cargo

.PHONY: test guests soak check

guests:
	examples/build.sh

# Tests start the program itself, and Cargo builds a program only for the tests of its own package.
test: guests
	$(CARGO) build --release --workspace --locked
	$(CARGO) test --release --workspace --locked
	$(CARGO) test --locked --manifest-path examples/Cargo.toml --target-dir target/guests-native

# The crash tests for as long as you like: OUTBOX_CRASH_KILLS=10000 make soak. Repeat a run with OUTBOX_CRASH_SEED.
soak: export OUTBOX_CRASH_KILLS ?= 2000
soak: guests
	$(CARGO) build --release --workspace --locked
	$(CARGO) test --release --workspace --locked --test crash

check:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --all --check --manifest-path examples/Cargo.toml
	$(CARGO) clippy --release --workspace --all-targets --locked -- -D warnings
