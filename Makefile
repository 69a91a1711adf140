# Everything a newcomer and CI need. `make help` lists the targets.
SHELL := /bin/sh
ARGS ?=
# Build products may live outside the clone (CI does that): set CARGO_TARGET_DIR.
TARGET_DIR := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
export CARGO_TERM_PROGRESS_WHEN ?= auto

.PHONY: help quickstart build release test test-peers unit lint fmt bench fuzz demo-vm-realtime image

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 22

quickstart: ## start manager and agent, deploy the sample over SSH with live logs (ARGS="--break" or "--serve")
	@scripts/check-prerequisites quickstart
	@echo "building the small feature set (a few minutes the first time) …"
	@cargo build --locked --profile quick --package delegate-cli --no-default-features --features ssh
	@"$(TARGET_DIR)/quick/delegate" quickstart $(ARGS)

build: ## debug build of everything
	@scripts/check-prerequisites build
	cargo build --locked --workspace --all-targets

release: ## the binary as it is shipped
	@scripts/check-prerequisites build
	cargo build --locked --release --package delegate-cli

test-peers: ## install and prepare the real systems that the tests run against
	@scripts/install-test-peers

test: ## install what the tests need, run every test
	@scripts/check-prerequisites build
	@scripts/stage "test peers" scripts/install-test-peers
	@scripts/stage "build tests" cargo test --locked --workspace --no-run
	@scripts/stage "tests" cargo test --locked --workspace --no-fail-fast

unit: ## only the tests that need no peers
	cargo test --locked -p proto -p expr -p pipeline -p executor-api -p secrets

lint: ## format, clippy, crate directions, file lengths, error pages, licences
	@scripts/stage "format" cargo fmt --all --check
	@scripts/stage "crate directions" scripts/check-crate-directions
	@scripts/stage "file lengths" scripts/check-file-lengths
	@scripts/stage "error pages" scripts/check-error-pages
	@scripts/stage "clippy" cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	@scripts/stage "licences, bans, sources" scripts/check-dependencies

fmt: ## format the code
	cargo fmt --all

bench: ## performance as ratios against named peers
	@scripts/check-prerequisites build
	@scripts/bench $(ARGS)

fuzz: ## fuzz expressions, documents and wire decoders, a minute each at once (FUZZ_SECONDS=600)
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60) cargo test --locked --package e2e --test fuzz -- --nocapture

demo-vm-realtime: ## the seed's VM pipeline once in real time (about 12 minutes)
	@scripts/install-test-peers
	cargo test --locked --package e2e --test e2e -- --ignored --nocapture demo_vm_realtime

image: ## container image
	docker build -t delegate .
