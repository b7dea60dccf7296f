# What people and CI type. Rust is expected to be installed; everything else is installed when it is missing.

BUILT := $(or $(CARGO_TARGET_DIR),target)/debug
# Only the isolated servers need root; when you are not root, sudo asks you.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
HOST ?= web-1
SHELL := /bin/bash

.PHONY: help build demo demo-shell demo-stop test fmt bench bench-fleet bench-nodes proof fuzz packages hosts

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build all programs
	cargo build --workspace --bins

demo: ## the main job on three isolated servers; KEEP=1 leaves them running
	@tests/install-tools demo
	@cargo build --workspace --bins
	@$(AS_ROOT) $(BUILT)/bastio-lab prepare
	@$(AS_ROOT) $(BUILT)/bastio-demo run $(if $(KEEP),--keep)

demo-shell: ## a root shell on a server of a kept demo: HOST=web-1, web-2, db-1 or backend
	@$(AS_ROOT) $(BUILT)/bastio-demo shell $(HOST)

demo-stop: ## end a kept demo and remove all of it
	@$(AS_ROOT) $(BUILT)/bastio-demo stop

test: ## format check, lints, all tests (the end-to-end ones need root)
	@tests/install-tools test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo build --workspace --bins --tests
	@if [ "$$(id -u)" -eq 0 ]; then $(BUILT)/bastio-lab prepare; fi
	cargo nextest run --workspace --no-tests=fail
	tests/with-postgres cargo nextest run --profile postgres -p bastio-backend --lib --test nodes --no-tests=fail
	@if [ "$$(id -u)" -ne 0 ]; then \
		echo; echo "*** NOT RUN: the end-to-end tests need root. As root: make test ***"; echo; fi
	@echo "not run here: the packages on booted hosts (make hosts)"

fmt: ## format the code
	cargo fmt --all

bench: ## measure the release programs against floors and limits (needs root)
	@tests/install-tools test
	cargo build --profile agent -p bastio-agent
	cargo build --release -p bastio-backend -p bastio -p bastio-bench -p bastio-tests
	@$(AS_ROOT) $(dir $(BUILT))release/bastio-lab prepare
	$(AS_ROOT) $(dir $(BUILT))release/bastio-bench

AGENTS := $(or $(COUNT),10000)
bench-fleet: ## one backend with COUNT (10000) emulated agents beside a bare SSH server; figures go into docs/
	cargo build --release -p bastio-backend -p bastio-bench
	$(dir $(BUILT))release/bastio-bench plan
	$(dir $(BUILT))release/bastio-bench agents --count $(AGENTS) --docs docs

bench-nodes: ## the same on PostgreSQL, then two nodes of which one is killed; figures go into docs/
	@tests/install-tools nodes
	cargo build --release -p bastio-backend -p bastio-bench
	$(dir $(BUILT))release/bastio-bench agents --store postgres --count $(AGENTS) --docs docs
	$(dir $(BUILT))release/bastio-bench agents --nodes 2 --count $(AGENTS) --docs docs

# What is slow by its number of tries; the usual tests do a part of each.
PROOFS := binary(proof) | (binary(e2e) & test(/^processor::(crash|journal)::/))
# Each tells one count; a proof that is not run, or is cut short, must not go unnoticed.
PROOFS_PROMISED := 34
proof: ## every proof by many tries, in full, with a table of the counts (needs root)
	@tests/install-tools test
	cargo build --workspace --bins
	@$(BUILT)/bastio-lab prepare
	@BASTIO_PROOF=full cargo nextest run -p bastio-tests --profile proof -E '$(PROOFS)' --no-fail-fast \
		--no-tests=fail 2>&1 | tee $(dir $(BUILT))proof.log; passed=$${PIPESTATUS[0]}; \
	echo; awk -F ' [|] ' '/^ *PROOF / && !told[$$2]++ { printf "%-44s %9d  %s\n", $$2, $$3, $$4; all += $$3; count++ } \
		END { printf "%-44s %9d\n", "together", all; \
		if (count != $(PROOFS_PROMISED)) { print count + 0 " proofs of $(PROOFS_PROMISED)"; exit 1 } }' \
		$(dir $(BUILT))proof.log && exit $$passed

# Programs that need no glibc newer than 2.28 (checked); paths of this machine stay out of them.
ZIG_TARGET := x86_64-unknown-linux-gnu
ZIGBUILD = PATH="$(abspath $(dir $(BUILT)))/venv-packaging/bin:$$PATH" \
	RUSTFLAGS="--remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}=/cargo" \
	cargo zigbuild --locked --target $(ZIG_TARGET).2.28

packages: ## the .deb and .rpm packages, checked by lintian and rpmlint, in target/packages
	@tests/install-tools packages
	packaging/check units
	$(ZIGBUILD) --profile agent -p bastio-agent
	$(ZIGBUILD) --release -p bastio-backend -p bastio
	packaging/build $(dir $(BUILT))$(ZIG_TARGET)
	packaging/check packages

hosts: packages ## the packages on whole booted hosts: enrol, reboot, upgrade, removal (needs root)
	@tests/install-tools hosts
	packaging/build $(dir $(BUILT))$(ZIG_TARGET) 0.0.1
	cargo build --workspace --bins
	@$(BUILT)/bastio-lab prepare
	cargo nextest run -p bastio-tests --test hosts --profile hosts

SECONDS_EACH := $(or $(SECONDS),30)
fuzz: ## fuzz every parser for SECONDS each (30); what is found stays in fuzz/artifacts
	@command -v cargo-fuzz >/dev/null 2>&1 || cargo install --locked cargo-fuzz
	@fuzz/seed-corpus
	@for target in $$(RUSTC_BOOTSTRAP=1 cargo fuzz list); do \
		echo "fuzzing $$target for $(SECONDS_EACH) s"; \
		RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none $$target -- \
			-max_total_time=$(SECONDS_EACH) -print_final_stats=1 -verbosity=0 || exit 1; \
	done
