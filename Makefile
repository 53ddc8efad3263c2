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

# A real OCI registry for the supply chain tests: the Debian package, unpacked but not installed.
.PHONY: registry
registry:
	@[ -x $(TARGET)/registry/usr/bin/docker-registry ] \
	|| { command -v apt-get >/dev/null && command -v dpkg >/dev/null && mkdir -p $(TARGET)/registry \
		&& cd $(TARGET)/registry && apt-get download docker-registry >/dev/null 2>&1 \
		&& dpkg -x docker-registry_*.deb . && rm docker-registry_*.deb; } \
	|| echo "==> skipping the registry tests: they need Debian's docker-registry (apt-get)"
	@command -v npm >/dev/null || echo "==> skipping the tests of JavaScript plugins: they need npm"

.PHONY: toolchain
toolchain: # Install the compiler in rust-toolchain.toml and its WebAssembly target
	@rustc --version >/dev/null 2>&1 || { echo "==> installing the Rust toolchain"; rustup toolchain install; }
	@rustup target list --installed | grep -qx $(WASM_TARGET) \
	|| { echo "==> installing the WebAssembly target"; rustup target add $(WASM_TARGET); }

# The requirements of target/python, which contains a copy of them. It is reinstalled when they differ.
# Timestamps would not work, because the files of a fresh clone are always newer. Comments do not count.
REQUIREMENTS := $(addprefix trainer/,requirements.txt requirements-dev.txt requirements-libraries.txt \
	requirements-transformers4.txt lock.txt)
# Requirements that conflict with the others, each installed into its own folder.
APART := libraries transformers4

.PHONY: python
python: ## Install target/python, the Python environment of the local cluster
	@cmp -s <(grep -hv '^#' $(REQUIREMENTS)) <(grep -sv '^#' $(ENVIRONMENT)/.installed) \
	|| $(MAKE) --no-print-directory python-install

.PHONY: python-install
python-install:
	@echo "==> installing PyTorch into target/python (this takes a few minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	|| { echo "this needs Python 3.10 or later; set PYTHON to choose another interpreter"; exit 1; }
	@$(PYTHON) -m venv $(ENVIRONMENT)
	@$(ENVIRONMENT)/bin/pip install --quiet --disable-pip-version-check \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
		-r trainer/requirements-dev.txt -c trainer/lock.txt
	@for list in $(APART); do \
		$(ENVIRONMENT)/bin/pip install --quiet --disable-pip-version-check --no-deps --upgrade \
			--target $(ENVIRONMENT)/$$list -r trainer/requirements-$$list.txt || exit 1; \
	done
	@cat $(REQUIREMENTS) > $(ENVIRONMENT)/.installed

.PHONY: lock
lock: python # Update trainer/lock.txt and lock-hashes.txt to the latest compatible releases
	@$(ENVIRONMENT)/bin/pip install --quiet --disable-pip-version-check uv
	@{ sed -n 1p trainer/lock.txt; cd trainer; $(ENVIRONMENT)/bin/uv pip compile --quiet --universal \
		--python-version 3.10 --no-annotate --no-header --no-emit-index-url requirements-dev.txt; \
	} > $(TARGET)/lock.txt && mv $(TARGET)/lock.txt trainer/lock.txt
	@{ sed -n 1p trainer/lock-hashes.txt; cd trainer; $(ENVIRONMENT)/bin/uv pip compile --quiet --universal \
		--python-version 3.10 --no-annotate --no-header --no-emit-index-url --generate-hashes \
		--constraints lock.txt requirements.txt; \
	} > $(TARGET)/lock.txt && mv $(TARGET)/lock.txt trainer/lock-hashes.txt

.PHONY: test
test: lint test-rust test-python e2e e2e-console e2e-kubernetes e2e-image ## Run every test that this machine supports

.PHONY: lint
lint: toolchain python ## Check formatting and lints
	@echo "==> checking formatting and lints"
	@cargo fmt --all --check
	@cargo clippy $(CARGO_FLAGS) --workspace --all-targets --quiet -- -D warnings
	@cargo clippy --profile plugin --locked --target $(WASM_TARGET) $(FRAMEWORKS:%=-p %) -p trainer-plugin --quiet -- -D warnings
	@cd trainer && $(ENVIRONMENT)/bin/ruff check --quiet . && $(ENVIRONMENT)/bin/ruff format --quiet --check .
	@cd trainer && $(ENVIRONMENT)/bin/mypy --no-error-summary .
	@$(MAKE) --no-print-directory prose

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

# The OpenID Connect provider of the tests.
.PHONY: oidc-provider
ifneq ($(shell command -v npm),)
oidc-provider: $(TARGET)/oidc/.installed

$(TARGET)/oidc/.installed: host/tests/oidc/package.json host/tests/oidc/package-lock.json
	@echo "==> installing the OpenID Connect provider of the tests"
	@mkdir -p $(TARGET)/oidc && cp $^ $(TARGET)/oidc
	@{ cd $(TARGET)/oidc && npm ci --no-audit --no-fund --loglevel error >/dev/null && touch .installed; } \
	|| echo "==> it cannot be installed: its tests are left out"
else
oidc-provider:
	@echo "==> no npm: the tests with an OpenID Connect provider are left out"
endif

.PHONY: test-rust
test-rust: build hostile oidc-provider ## Run the unit, snapshot, HTTP and sandbox tests
	@echo "==> running the unit, snapshot, HTTP and sandbox tests"
	@INSTA_UPDATE=no cargo test $(CARGO_FLAGS) --workspace --exclude e2e --exclude deploy
	@cargo test $(CARGO_FLAGS) -p deploy

# Has its own target folder, because the crates that read requests are built with coverage. The versions
# of its dependencies are those of the workspace, so it needs no lock file of its own.
FUZZ := $(TARGET)/fuzz
.PHONY: fuzz
fuzz: plugins ## Search for expensive requests, guided by coverage, for 30 minutes of processor time
	@echo "==> building with coverage (the first build takes some minutes)"
	@cp Cargo.lock fuzz/Cargo.lock
	@RUSTC_WRAPPER=$(CURDIR)/fuzz/instrument.sh cargo build --release --manifest-path fuzz/Cargo.toml \
		--target-dir $(FUZZ)
	@echo "==> searching; the worst requests are written to $(FUZZ)/worst"
	@mkdir -p $(FUZZ)/corpus $(FUZZ)/worst
	@TRAINER_FUZZ_WORST=$(FUZZ)/worst $(FUZZ)/release/requests $(FUZZ)/corpus host/tests/data/bounds/bodies \
		-max_len=1048576 -len_control=0 -timeout=60 -rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix=$(FUZZ)/worst/

.PHONY: test-hostile
test-hostile: build hostile ## Grow hostile schemas and modules until the host refuses them (minutes)
	@echo "==> loading hostile plugins of growing sizes"
	@cargo test $(CARGO_FLAGS) -p trainer-host --test integration -- --ignored --nocapture --test-threads 1 families::

.PHONY: test-python
test-python: build python ## Run the tests of train.py and of the frameworks' argument parsers
	@echo "==> running the tests of train.py"
	@cd trainer && $(ENVIRONMENT)/bin/pytest -q

# Number of rounds for `make race`. The tests run a few rounds.
ROUNDS ?= 200

.PHONY: race
race: build python ## Run processes and services that compete for one checkpoint prefix (ROUNDS=200)
	@echo "==> running writers that compete for one prefix"
	@cd trainer && TRAINER_TEST_ROUNDS=$(ROUNDS) $(ENVIRONMENT)/bin/pytest -q tests/test_race.py
	@TRAINER_RACES=$(ROUNDS) TRAINER_TEST_PYTHON=$(ENVIRONMENT) \
		cargo test $(CARGO_FLAGS) -p e2e --test e2e -- --nocapture race::

.PHONY: test-training
test-training: python ## Compare full training runs with the bare frameworks (up to 40 minutes)
	@echo "==> comparing training runs with the bare frameworks"
	@cd trainer && TRAINING_DIFFERENTIAL=full timeout 1500 $(ENVIRONMENT)/bin/pytest -q tests/differential
	@echo "==> comparing them with transformers 4"
	@cd trainer && TRAINING_DIFFERENTIAL=full PYTHONPATH=$(ENVIRONMENT)/transformers4 \
		timeout 900 $(ENVIRONMENT)/bin/pytest -q tests/differential

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

.PHONY: test-kills
test-kills: build ## Kill the service 500 times and its shims 200 times while jobs run
	@echo "==> killing the service and its shims while jobs run"
	@TRAINER_KILLS=500 TRAINER_SHIM_KILLS=200 cargo test $(CARGO_FLAGS) -p e2e --test e2e -- --nocapture kills::

.PHONY: control-plane
control-plane: ## Build the Kubernetes control plane for the tests (needs Go 1.26)
	@e2e/control-plane/build.sh $(TARGET)/control-plane

.PHONY: e2e-kubernetes
ifneq ($(GO),)
e2e-kubernetes: build control-plane ## Run the end-to-end tests on a real Kubernetes control plane
	@echo "==> running the end-to-end tests on Kubernetes with a real API server and training operator"
	@cargo test $(CARGO_FLAGS) -p e2e --test kubernetes -- --skip speed:: --skip reads::

.PHONY: e2e-queues
e2e-queues: build control-plane ## Watch a job that is suspended in a real queue for a minute
	@echo "==> running the long tests of queues on Kubernetes"
	@cargo test $(CARGO_FLAGS) -p e2e --test kubernetes -- --ignored queues::

# musl-gcc builds the static binary of the image. Only root can start it as the user in deploy/.
ifneq ($(and $(shell command -v musl-gcc),$(filter 0,$(shell id -u))),)
.PHONY: e2e-image
e2e-image: image-files build control-plane ## Test the image as deployed by deploy/ (needs root and musl-gcc)
	@echo "==> testing the image on Kubernetes"
	@cargo test $(CARGO_FLAGS) -p e2e --test kubernetes -- --ignored the_image_serves
else
e2e-image:
	@echo "==> skipping the image test: it needs musl-gcc (musl-tools) and root"
endif

.PHONY: bench-kubernetes
bench-kubernetes: build control-plane ## Measure reads of many jobs and the cost of a creation
	@echo "==> measuring on Kubernetes"
	@cargo test $(CARGO_FLAGS) -p e2e --test kubernetes -- --test-threads 1 --nocapture speed:: reads::
	@cargo test $(CARGO_FLAGS) -p e2e --test kubernetes -- --test-threads 1 --nocapture --ignored creation::
else
e2e-kubernetes e2e-queues e2e-image:
	@echo "==> skipping the end-to-end tests on Kubernetes: they need Go"
endif

.PHONY: bench
bench: build hostile ## Measure speed, memory and startup, and write docs/performance.md
	@echo "==> measuring the service"
	@cargo run $(CARGO_FLAGS) --quiet -p e2e --bin bench

.PHONY: bench-logs
bench-logs: build ## Measure the memory needed to follow a million log lines
	@echo "==> following a million log lines"
	@cargo test $(CARGO_FLAGS) -p e2e --test e2e -- --ignored --nocapture following_a_million

.PHONY: bench-connections
bench-connections: build hostile ## Measure health checks and submissions during attacks
	@echo "==> starting 2000 clients that send one byte per second and 500 that read nothing, then 8 of each attack"
	@cargo test $(CARGO_FLAGS) -p e2e --test e2e -- --ignored --nocapture --test-threads 1 thousands_of_slow eight_clients one_bad_client

.PHONY: bench-plugins
bench-plugins: build hostile ## Measure plugins in each language, and write docs/plugin-performance.md
	@echo "==> measuring the plugins"
	@cargo run $(CARGO_FLAGS) --quiet -p e2e --bin bench_plugins

.PHONY: bench-trainer
bench-trainer: python ## Measure the trainer image, and write docs/performance-trainer.md
	@echo "==> measuring the trainer image"
	@cd trainer && $(ENVIRONMENT)/bin/python tests/bench.py > $(TARGET)/performance-trainer.md
	@mv $(TARGET)/performance-trainer.md docs/performance-trainer.md

# The tool that builds images: docker, podman or buildah.
IMAGE_TOOL ?= docker
IMAGE ?= ghcr.io/deepfinery/trainer-host:0.1.0
STATIC_TARGET := $(shell uname -m)-unknown-linux-musl

.PHONY: image
image: image-files ## Build the service's image (IMAGE_TOOL=docker, podman or buildah)
	@echo "==> building $(IMAGE)"
	@$(IMAGE_TOOL) build --quiet --tag $(IMAGE) --file deploy/Dockerfile $(TARGET)/image

.PHONY: image-files
image-files: plugins # Build the files of the image (needs musl-gcc from musl-tools)
	@echo "==> building the static binary (the first build takes a few minutes)"
	@rustup target list --installed | grep -qx $(STATIC_TARGET) || rustup target add $(STATIC_TARGET)
	@cargo build $(CARGO_FLAGS) --target $(STATIC_TARGET) -p trainer-host
	@rm -rf $(TARGET)/image
	@mkdir -p $(TARGET)/image/data
	@cp target/$(STATIC_TARGET)/release/trainer $(TARGET)/image/
	@cp -r target/plugins $(TARGET)/image/

.PHONY: docs
docs: build ## Generate docs/frameworks and trainer/defaults.json from the plugins
	@mkdir -p docs/frameworks
	@for framework in $(FRAMEWORKS); do \
		target/release/trainer explain $$framework --output markdown > docs/frameworks/$$framework.md; \
	done
	@$(PYTHON) trainer/tests/known_defaults.py target/release/trainer > trainer/defaults.json

.PHONY: known-options
known-options: python ## Generate the lists of options of torchrun and the frameworks
	@cd trainer && $(ENVIRONMENT)/bin/python tests/known_options.py ../plugins/sdk/known

.PHONY: openapi
openapi: build ## Generate docs/openapi.json from the types
	@UPDATE_OPENAPI=1 cargo test $(CARGO_FLAGS) -p trainer-host --test integration -- describes_itself

.PHONY: access-matrix
access-matrix: build ## Generate docs/access-matrix.md from requests to a service
	@UPDATE_ACCESS_MATRIX=1 cargo test $(CARGO_FLAGS) -p trainer-host --test integration -- committed_table

.PHONY: access-speed
access-speed: build ## Compare a service with 10,000 tokens and a policy to one without
	@cargo test $(CARGO_FLAGS) -p trainer-host --test integration -- --ignored --nocapture tokens_and_policies

.PHONY: isolation-timing
isolation-timing: build ## Measure whether time tells a run of another namespace from one that does not exist
	@cargo test $(CARGO_FLAGS) -p trainer-host --test integration -- --ignored --nocapture time_does_not_tell

.PHONY: isolation
isolation: build ## Send 100,000 generated requests of a caller who may not see another namespace
	@ACCESS_REQUESTS=100000 cargo test $(CARGO_FLAGS) -p trainer-host --test integration -- --nocapture another_namespace

.PHONY: contract
contract: build $(TARGET)/schemathesis/.installed ## Test a running service against its OpenAPI document
	@echo "==> sending more than 5000 requests generated from docs/openapi.json"
	@SCHEMATHESIS=$(TARGET)/schemathesis/bin/schemathesis cargo test $(CARGO_FLAGS) -p e2e --test e2e -- --ignored contract

$(TARGET)/schemathesis/.installed: e2e/requirements.txt
	@$(PYTHON) -m venv $(TARGET)/schemathesis
	@$(TARGET)/schemathesis/bin/pip install --quiet --disable-pip-version-check -r e2e/requirements.txt
	@touch $@

.PHONY: snapshots
snapshots: plugins ## Accept the current previews as snapshots
	@INSTA_UPDATE=always INSTA_FORCE_PASS=1 cargo test $(CARGO_FLAGS) -p snapshots

# Installs its tools. Skips the advisories if their database is unreachable.
AUDIT := $(TARGET)/audit
.PHONY: audit
audit: $(AUDIT)/.installed ## Check dependencies: licences, sources, advisories, unused ones
	@echo "==> checking licences and sources, and searching for unused dependencies"
	@cargo fetch --locked
	@$(AUDIT)/bin/cargo-deny --offline --locked check --hide-inclusion-graph bans licenses sources
	@$(AUDIT)/bin/cargo-machete
	@echo "==> checking advisories"
	@if $(AUDIT)/bin/cargo-deny --locked fetch; then \
		$(AUDIT)/bin/cargo-deny --offline --locked check advisories; \
	else echo "==> skipped: the advisories of Rust crates, whose database is unreachable"; fi
	@$(AUDIT)/python/bin/pip-audit --disable-pip --no-deps --require-hashes -r trainer/lock-hashes.txt

$(AUDIT)/.installed:
	@echo "==> installing cargo-deny, cargo-machete and pip-audit (some minutes)"
	@cargo install --quiet --locked --root $(AUDIT) cargo-deny cargo-machete
	@$(PYTHON) -m venv $(AUDIT)/python
	@$(AUDIT)/python/bin/pip install --quiet --disable-pip-version-check pip-audit
	@touch $@

.PHONY: clean
clean: ## Remove all build output
	@cargo clean
