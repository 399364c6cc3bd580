# Every task has one name, the same for people and for CI. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
CARGO_FLAGS ?= --locked
# Property tests try the same cases every time; `make test PROPTEST_RNG_SEED=7` looks at others.
export PROPTEST_RNG_SEED ?= 20261124
TOOLS := target/tools
RELEASE := target/release/tracklayer

.PHONY: help setup build release check fmt clippy proto chart test torture demo dev bench image clean-tools

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: ## Install what is missing: PostgreSQL, Redis and what the tests' clients need (Debian: apt, with sudo where needed)
	@scripts/setup

build: setup ## Build everything, unoptimised
	$(CARGO) build $(CARGO_FLAGS) --workspace

release: setup ## Build the optimised binary
	$(CARGO) build $(CARGO_FLAGS) --release -p tracklayer

check: fmt clippy proto chart ## Format, lints, protos and chart

fmt: ## Check the format
	$(CARGO) fmt --all -- --check

clippy: ## Lints; warnings are errors
	$(CARGO) clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings

proto: ## Lint the protos with buf; refuse a change that breaks main's clients or stored bytes
	@scripts/tool buf >/dev/null
	cd proto && ../$(TOOLS)/bin/buf lint && ../$(TOOLS)/bin/buf build -o /dev/null
	@if git rev-parse --verify -q main:proto/buf.yaml >/dev/null; then \
		cd proto && ../$(TOOLS)/bin/buf breaking --against '../.git#branch=main,subdir=proto'; \
	fi

chart: ## Render the Helm chart for two sets of values and validate every object against Kubernetes' schemas
	@scripts/check-chart

test: setup ## Run all tests
	$(CARGO) build $(CARGO_FLAGS) -p tracklayer
	$(CARGO) test $(CARGO_FLAGS) --workspace

torture: setup ## Kill, pause, cut, starve and stop everything under load: SEEDS=20 FROM=1, JOURNAL=kafka, PREVIOUS=REV beside this
	$(if $(PREVIOUS),scripts/previous $(PREVIOUS))
	$(CARGO) build $(CARGO_FLAGS) -p tracklayer
	TORTURE_SEEDS=$(or $(SEEDS),20) TORTURE_FROM=$(or $(FROM),1) TORTURE_JOURNAL=$(JOURNAL) \
		$(if $(PREVIOUS),TORTURE_PREVIOUS="$$(scripts/previous $(PREVIOUS))") \
		$(CARGO) test $(CARGO_FLAGS) -p tracklayer-tests --test torture -- --nocapture what_was_acknowledged

demo: release ## Watch a sample day go the whole way; ONCE=1 ends when it is done
	$(RELEASE) demo $(if $(ONCE),--once) $(if $(VISITORS),--visitors $(VISITORS)) $(if $(SEED),--seed $(SEED))

dev: release ## Run everything on this machine: five services, PostgreSQL, Redis, the platforms' sandbox
	$(RELEASE) dev

bench: release ## Measure, each figure beside the machine's own limit
	$(RELEASE) bench $(BENCH_FLAGS)

image: ## Build the container image (needs a Docker engine)
	docker build -f k8s/Dockerfile -t tracklayer:dev .

clean-tools: ## Remove downloaded tools
	rm -rf $(TOOLS)
