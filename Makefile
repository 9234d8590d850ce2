# `make demo` shows it, `make test` checks it. Both install what they need and say what that is.
SHELL := /bin/bash
CARGO ?= cargo

.PHONY: demo test guests bench check deny

# An application's orders, from its own transaction through a sandboxed publisher: see examples/demo.sh.
demo:
	examples/need.sh cc python3
	examples/demo.sh

test: guests
	examples/need.sh cc python3 npm
	$(CARGO) build --release --workspace --locked
	$(CARGO) test --release --workspace --locked
	$(CARGO) test --locked --manifest-path examples/Cargo.toml --target-dir target/guests-native

# The publishers of this repository, as components in target/guests.
guests:
	examples/need.sh cc
	examples/build.sh

# The relay's rate beside bare SQLite's in the same run, and how soon it notices another process's commit.
bench:
	examples/need.sh cc
	examples/build.sh noop
	$(CARGO) build --release --locked -p outbox-host
	target/release/outbox bench --publisher target/guests/noop.wasm

check:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --all --check --manifest-path examples/Cargo.toml
	$(CARGO) clippy --release --workspace --all-targets --locked -- -D warnings

# Licences, banned crates and sources of all dependencies.
deny:
	$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install cargo-deny --locked --version 0.18.3
	$(CARGO) deny --locked check licenses bans sources
	$(CARGO) deny --locked --manifest-path examples/Cargo.toml check licenses bans sources
