# The project's commands. `make help` lists them.

# Delete the target of a failed recipe, so that make does not take it for complete.
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
SHELL := bash

# The folder for all build output. The path is resolved, because a Python environment cannot be moved.
TARGET := $(realpath .)/target
ifneq ($(wildcard target),)
TARGET := $(realpath target)
endif
PYTHON ?= python3
# An additional package index for PyTorch. By default, pip's index provides the CUDA build (3 GB, which also
# runs on CPUs). PyTorch's CPU index provides a much smaller build:
#   make run TORCH_INDEX=<address of the index>
TORCH_INDEX ?=
ENVIRONMENT := $(TARGET)/python
FRAMEWORKS := nemo hf meta
WASM_TARGET := wasm32-unknown-unknown
# A single profile for all native builds, because cargo shares no artifacts between profiles.
CARGO_FLAGS := --release --locked

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

.PHONY: run
run: build python ## Serve on 127.0.0.1:8080 with the local cluster
	@echo "==> serving; press Ctrl-C to stop"
	@TRAINER_LOCAL_PYTHON=$${TRAINER_LOCAL_PYTHON-$(ENVIRONMENT)} target/release/trainer serve

.PHONY: build
build: plugins ## Build target/release/trainer and the plugins
	@echo "==> building the service (the first build takes a few minutes)"
	@cargo build $(CARGO_FLAGS) -p trainer-host

PREFIX ?= /usr/local

.PHONY: install
install: build ## Install the program into PREFIX/bin (PREFIX=/usr/local)
	@install -D -m 755 target/release/trainer $(DESTDIR)$(PREFIX)/bin/trainer

.PHONY: plugins
plugins: toolchain ## Build target/plugins/{nemo,hf,meta}.wasm
	@echo "==> building the plugins: $(FRAMEWORKS)"
	@cargo build --profile plugin --locked --target $(WASM_TARGET) $(FRAMEWORKS:%=-p %)
	@mkdir -p target/plugins
	@for framework in $(FRAMEWORKS); do \
		cmp -s target/$(WASM_TARGET)/plugin/$$framework.wasm target/plugins/$$framework.wasm \
		|| cp target/$(WASM_TARGET)/plugin/$$framework.wasm target/plugins/$$framework.wasm; \
	done

.PHONY: hostile
hostile: toolchain # Build the plugin that attacks the host in tests
	@cargo build --profile plugin --locked --target $(WASM_TARGET) -p hostile

.PHONY: toolchain
toolchain: # Install the compiler in rust-toolchain.toml and its WebAssembly target
	@rustc --version >/dev/null 2>&1 || { echo "==> installing the Rust toolchain"; rustup toolchain install; }
	@rustup target list --installed | grep -qx $(WASM_TARGET) \
	|| { echo "==> installing the WebAssembly target"; rustup target add $(WASM_TARGET); }

.PHONY: test
test: lint test-rust test-python test-client e2e e2e-console e2e-kubernetes e2e-image ## Run every test that this machine supports

.PHONY: lint
lint: toolchain python ## Check formatting and lints
	@echo "==> checking formatting and lints"
	@cargo fmt --all --check
	@cargo clippy $(CARGO_FLAGS) --workspace --all-targets --quiet -- -D warnings
	@cargo clippy --profile plugin --locked --target $(WASM_TARGET) $(FRAMEWORKS:%=-p %) -p trainer-plugin --quiet -- -D warnings
	@cd trainer && $(ENVIRONMENT)/bin/ruff check --quiet . && $(ENVIRONMENT)/bin/ruff format --quiet --check .
	@cd trainer && $(ENVIRONMENT)/bin/mypy --no-error-summary .
	@$(PYTHON) tools/structure.py
	@$(MAKE) --no-print-directory prose

SEED ?= 1

.PHONY: draw
draw: ## Print random sentences and names for a reader to judge (SEED=1)
	@$(PYTHON) tools/draw.py --seed $(SEED)

# The prose linter and the tests on Kubernetes need Go, which is optional.
GO := $(shell command -v go)
VALE := $(TARGET)/vale/vale
# What the prose linter checks: everything except build output.
PROSE := $(filter-out target,$(wildcard *)) .ci
NOT_PROSE := '!{docs/frameworks/*,trainer/lock.txt}'

.PHONY: prose
prose: ## Check the prose of documentation and comments (needs Go)
ifneq ($(GO),)
prose: $(VALE)
	@$(VALE) --glob=$(NOT_PROSE) --no-wrap --output line $(PROSE)

$(VALE): tools/vale/go.sum
	@echo "==> building the prose linter (this takes 1 to 2 minutes)"
	@cd tools/vale && GOWORK=off go build -trimpath -ldflags '-s -w' -o $@ github.com/vale-cli/vale/v3/cmd/vale
else
	@echo "==> skipping the prose linter: it needs Go"
endif

.PHONY: test-rust
test-rust: build hostile oidc-provider ## Run the unit, snapshot, HTTP and sandbox tests
	@echo "==> running the unit, snapshot, HTTP and sandbox tests"
	@INSTA_UPDATE=no cargo test $(CARGO_FLAGS) --workspace --exclude e2e --exclude deploy
	@cargo test $(CARGO_FLAGS) -p deploy

.PHONY: test-python
test-python: build python ## Run the tests of train.py and of the frameworks' argument parsers
	@echo "==> running the tests of train.py"
	@cd trainer && $(ENVIRONMENT)/bin/pytest -q

.PHONY: e2e
e2e: build hostile registry python ## Run the end-to-end tests with real servers and real training
	@echo "==> running the end-to-end tests with real servers and real training"
	@TRAINER_TEST_PYTHON=$(ENVIRONMENT) cargo test $(CARGO_FLAGS) -p e2e --test e2e

# What drives the console. Playwright's own browsers are not used: they are large downloads.
CHROMIUM := $(firstword $(foreach name,chromium chromium-browser google-chrome,$(shell command -v $(name))))

.PHONY: e2e-console
ifneq ($(CHROMIUM),)
e2e-console: build $(TARGET)/console/.installed ## Test the web console in Chromium; screenshots in target/console-screenshots
	@echo "==> the web console in a browser"
	@TRAINER_CHROMIUM=$(CHROMIUM) TRAINER_SCREENSHOTS=$(TARGET)/console-screenshots \
		$(TARGET)/console/bin/pytest -q -s -p no:cacheprovider e2e/console

$(TARGET)/console/.installed: e2e/console/requirements.txt
	@$(PYTHON) -m venv $(TARGET)/console
	@$(TARGET)/console/bin/pip install --quiet --disable-pip-version-check -r e2e/console/requirements.txt
	@touch $@
else
e2e-console:
	@echo "==> no Chromium: the tests of the web console are left out (apt-get install chromium)"
endif

.PHONY: clean
clean: ## Remove all build output
	@cargo clean

include $(wildcard make/*.mk)
