# `make demo` shows it, `make test` checks it. Each target first looks for all tools that it needs, and installs those that
# Debian has: see examples/need.sh.
SHELL := /bin/bash
CARGO ?= cargo
NEED := examples/need.sh cargo cc crates=. crates=examples crates=examples/rust-webhook

# The crates that can be published.
CRATES := outbox-engine outbox-conformance outbox-sqlite outbox-postgres outbox-wasm outbox-templates outbox-host outbox-guest

.PHONY: demo unit test guests languages bench compare instructions soak check package deny

# An application's orders, from its own transaction through a sandboxed publisher: see examples/demo.sh.
demo:
	$(NEED) wasm python3 room=3
	examples/demo.sh

# Tests that need only Rust, in about two minutes once everything is built: library tests, doc tests, and the quick tests of
# tests/tests that need no component in another language. They build the components in Rust, which needs wasm32-wasip2.
unit:
	$(NEED) wasm room=3
	examples/build.sh rust-bulk rust-stdout rust-webhook $(notdir $(wildcard tests/guests/*))
	rm -f target/skipped/tests
	$(CARGO) build --release --workspace --locked
	$(CARGO) test --release --workspace --locked --lib --bins $(patsubst %,--test %,$(filter-out $(NOT_UNIT),$(ALL_TESTS)))
	$(CARGO) test --release --workspace --locked --doc
	@examples/skipped.sh tests

ALL_TESTS := $(basename $(notdir $(wildcard tests/tests/*.rs)))
# These need other languages, root or the system's tools, or take long: crashes, hostile publishers, figures.
NOT_UNIT := any_value applications cli_new languages need walkthrough \
  crash damaged descriptors disk_full durable model model_relay outage shutdown swap swap_crash tls unsettled users \
  hostile hostile_compile hostile_http hostile_relay hostile_together hostile_variants hostile_wasi \
  cli_bench idle instances_cost instructions limits_cost rows_memory

# Tests start the program itself, and Cargo builds a program only for tests of its own package: hence the build.
test: ALSO := postgres
test: guests
	rm -f target/skipped/tests
	$(CARGO) build --release --workspace --locked
	$(CARGO) test --release --workspace --locked --features outbox-guest/http
	$(CARGO) test --locked --manifest-path examples/Cargo.toml --target-dir target/guests-native
	examples/test.sh
	@examples/skipped.sh tests

# The publishers of this repository, as components in target/guests.
guests:
	$(NEED) wasm python3 room=6 -- venv $(ALSO)
	examples/build.sh

# The table of languages in the README.
languages: guests
	$(CARGO) build --release --workspace --locked
	$(CARGO) run --release --locked -p outbox-tests --example languages -- README.md

# What this machine reaches, each figure beside its baseline: SCENARIOS="memory backlog", BENCH="--repeat 9 --json".
bench:
	$(NEED) wasm room=3
	examples/build.sh noop waits rust-webhook rust-bulk scripted
	$(CARGO) build --release --workspace --locked
	target/release/outbox bench $(SCENARIOS) --publisher target/guests/noop.wasm --waits target/guests/waits.wasm \
	  --webhook target/guests/rust-webhook.wasm --scripted target/guests/scripted.wasm \
	  --bulk target/guests/rust-bulk.wasm $(BENCH)

# The relay's drain beside other outboxes in Python with SQLite: COMPARE="--repeat 5 --json".
compare:
	$(NEED) wasm python3 venv room=3
	examples/build.sh noop
	$(CARGO) build --release --workspace --locked
	tests/compare/compare.sh --outbox target/release/outbox --publisher target/guests/noop.wasm $(COMPARE)

# The processor's instructions for an entry. If there is valgrind, `make test` checks that they are below a ceiling.
instructions:
	$(NEED) wasm room=3
	examples/build.sh noop
	$(CARGO) build --release --workspace --locked
	$(CARGO) test --release --workspace --locked --test instructions -- --nocapture

# The crash tests for as long as you like: OUTBOX_CRASH_KILLS=10000 make soak. Repeat a run with OUTBOX_CRASH_SEED.
soak: export OUTBOX_CRASH_KILLS ?= 2000
soak: guests
	$(CARGO) build --release --workspace --locked
	$(CARGO) test --release --workspace --locked --test crash

check:
	$(NEED) rustfmt clippy room=3
	$(CARGO) fmt --all --check
	$(CARGO) fmt --all --check --manifest-path examples/Cargo.toml
	$(CARGO) fmt --all --check --manifest-path examples/rust-webhook/Cargo.toml
	$(CARGO) clippy --release --workspace --all-targets --features outbox-guest/http --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --workspace --no-deps --locked --features outbox-guest/http

# Each crate as it would be published, built from its package alone: it takes as long as a first build. The folder is a new one each
# time, since Cargo takes the crates of an earlier run for the same ones. PACKAGE=--no-verify builds none of them.
package:
	$(NEED) room=6
	rm -rf target/packages-*
	CARGO_PROFILE_DEV_DEBUG=0 $(CARGO) package --locked --allow-dirty --target-dir target/packages-$$$$ $(CRATES:%=-p %) $(PACKAGE)
	rm -rf target/packages-*

# Licences, banned crates, sources and known vulnerabilities of all dependencies.
deny:
	examples/need.sh cargo cc
	$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install cargo-deny --locked --version 0.20.2
	$(CARGO) deny --locked check licenses bans sources
	$(CARGO) deny --locked --manifest-path examples/Cargo.toml check licenses bans sources
	$(CARGO) deny --locked --manifest-path examples/rust-webhook/Cargo.toml check licenses bans sources
	.ci/advisories
