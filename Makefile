# `make demo` shows it, `make test` checks it. Both install what they need and say what that is.
SHELL := /bin/bash
CARGO ?= cargo

.PHONY: test guests check

guests:
	examples/build.sh

test: guests
	$(CARGO) test --release --workspace --locked
	$(CARGO) test --locked --manifest-path examples/Cargo.toml --target-dir target/guests-native

check:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --all --check --manifest-path examples/Cargo.toml
	$(CARGO) clippy --release --workspace --all-targets --locked -- -D warnings
