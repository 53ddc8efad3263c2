# The project's commands. `make help` lists them.

# Without this a failed recipe would leave a half-made file that counts as made.
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
SHELL := bash

# Where everything that is built goes. A real path: a Python environment cannot be moved.
TARGET := $(realpath .)/target
ifneq ($(wildcard target),)
TARGET := $(realpath target)
endif
PYTHON ?= python3
# Where pip gets PyTorch from. The default is pip's own index, which has the CUDA build (3 GB; it
# runs on CPUs too). PyTorch's CPU index is much smaller where it can be reached:
#   make run TORCH_INDEX=<address of the index>
TORCH_INDEX ?=
ENVIRONMENT := $(TARGET)/python
FRAMEWORKS := nemo hf meta
WASM_TARGET := wasm32-unknown-unknown
# One profile for everything that runs here: cargo shares nothing between two.
CARGO_FLAGS := --release --locked

say = @echo "==> $(1)"

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: run
run: build python ## Serve on 127.0.0.1:8080 with the local cluster
	$(call say,serving; stop with Ctrl-C)
	@TRAINER_LOCAL_PYTHON=$${TRAINER_LOCAL_PYTHON-$(ENVIRONMENT)} target/release/trainer serve

.PHONY: build
build: plugins ## Build target/release/trainer and the plugins
	$(call say,building the service (the first time takes some minutes))
	@cargo build $(CARGO_FLAGS) -p trainer-host

.PHONY: plugins
plugins: toolchain ## Build target/plugins/{nemo,hf,meta}.wasm
	$(call say,building the plugins: $(FRAMEWORKS))
	@cargo build --profile plugin --locked --target $(WASM_TARGET) $(FRAMEWORKS:%=-p %)
	@mkdir -p target/plugins
	@for framework in $(FRAMEWORKS); do \
		cmp -s target/$(WASM_TARGET)/plugin/$$framework.wasm target/plugins/$$framework.wasm \
		|| cp target/$(WASM_TARGET)/plugin/$$framework.wasm target/plugins/$$framework.wasm; \
	done

.PHONY: hostile
hostile: toolchain # The plugin that the sandbox tests attack the host with
	@cargo build --profile plugin --locked --target $(WASM_TARGET) -p hostile

# A real OCI registry for the tests of the supply chain: Debian's package, unpacked and not installed.
.PHONY: registry
registry:
	@[ -x $(TARGET)/registry/usr/bin/docker-registry ] \
	|| { command -v apt-get >/dev/null && command -v dpkg >/dev/null && mkdir -p $(TARGET)/registry \
		&& cd $(TARGET)/registry && apt-get download docker-registry >/dev/null 2>&1 \
		&& dpkg -x docker-registry_*.deb . && rm docker-registry_*.deb; } \
	|| echo "==> left out: the tests of registries, which need Debian's docker-registry (apt-get)"
	@command -v npm >/dev/null || echo "==> left out: the tests of plugins in JavaScript, which need npm"

.PHONY: toolchain
toolchain: # The compiler of rust-toolchain.toml and its WebAssembly target
	@rustc --version >/dev/null 2>&1 || { echo "==> installing the Rust toolchain"; rustup toolchain install; }
	@rustup target list --installed | grep -qx $(WASM_TARGET) \
	|| { echo "==> installing the WebAssembly target"; rustup target add $(WASM_TARGET); }

# What target/python is made of. It holds a copy of them, so that it is made anew when one of them
# says something else: by their times every fresh clone would have newer ones.
REQUIREMENTS := $(addprefix trainer/,requirements.txt requirements-dev.txt requirements-libraries.txt \
	requirements-transformers4.txt lock.txt)
# Packages for tests that cannot stand beside the others, each list in a folder of its own.
APART := libraries transformers4

.PHONY: python
python: ## Install target/python, the local cluster's Python environment
	@cat $(REQUIREMENTS) | cmp -s - $(ENVIRONMENT)/.installed || $(MAKE) --no-print-directory python-anew

.PHONY: python-anew
python-anew:
	$(call say,installing PyTorch into target/python (the first time takes some minutes))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	|| { echo "Python 3.10 or later is needed; PYTHON=... names another"; exit 1; }
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
lock: python # Write trainer/lock.txt anew from the newest releases that fit
	@$(ENVIRONMENT)/bin/pip install --quiet --disable-pip-version-check uv
	@{ sed -n 1p trainer/lock.txt; cd trainer; $(ENVIRONMENT)/bin/uv pip compile --quiet --universal \
		--python-version 3.10 --no-annotate --no-header --no-emit-index-url requirements-dev.txt; \
	} > $(TARGET)/lock.txt && mv $(TARGET)/lock.txt trainer/lock.txt

.PHONY: test
test: lint test-rust test-python e2e e2e-kubernetes e2e-image ## Every test that this machine can run

.PHONY: lint
lint: toolchain python ## Formats and lints
	$(call say,formats and lints)
	@cargo fmt --all --check
	@cargo clippy $(CARGO_FLAGS) --workspace --all-targets --quiet -- -D warnings
	@cargo clippy --profile plugin --locked --target $(WASM_TARGET) $(FRAMEWORKS:%=-p %) -p trainer-plugin --quiet -- -D warnings
	@cd trainer && $(ENVIRONMENT)/bin/ruff check --quiet . && $(ENVIRONMENT)/bin/ruff format --quiet --check .
	@cd trainer && $(ENVIRONMENT)/bin/mypy --no-error-summary .

.PHONY: test-rust
test-rust: build hostile ## Unit, snapshot, HTTP and sandbox tests
	$(call say,unit, snapshot, HTTP and sandbox tests)
	@INSTA_UPDATE=no cargo test $(CARGO_FLAGS) --workspace --exclude e2e --exclude deploy
	@cargo test $(CARGO_FLAGS) -p deploy

.PHONY: fuzz
fuzz: build ## Send expensive requests for 30 minutes of processor time, and measure each
	$(call say,sending expensive requests)
	@cargo test $(CARGO_FLAGS) -p trainer-host --test bounds -- --ignored --nocapture campaign

.PHONY: test-python
test-python: build python ## Tests of train.py, and of what plugins write with the frameworks' parsers
	$(call say,tests of train.py)
	@cd trainer && $(ENVIRONMENT)/bin/pytest -q

# Rounds of the race for one prefix. The tests of train.py run a few.
ROUNDS ?= 200

.PHONY: race
race: python ## Race writers of two clusters for one checkpoint prefix (ROUNDS=200)
	$(call say,racing for one prefix)
	@cd trainer && TRAINER_TEST_ROUNDS=$(ROUNDS) $(ENVIRONMENT)/bin/pytest -q tests/test_lease.py -k race

.PHONY: test-training
test-training: python ## Compare trainings with the bare frameworks, in full (at most 40 minutes)
	$(call say,trainings by train.py and by the bare frameworks)
	@cd trainer && TRAINING_DIFFERENTIAL=full timeout 2400 $(ENVIRONMENT)/bin/pytest -q tests/differential

.PHONY: e2e
e2e: build hostile registry python ## End-to-end tests: the real service, real training
	$(call say,end-to-end tests: real servers and real training)
	@TRAINER_TEST_PYTHON=$(ENVIRONMENT) cargo test $(CARGO_FLAGS) -p e2e --test e2e

.PHONY: test-kills
test-kills: build ## Kill the service 500 times and its shims 200 times, with jobs in flight
	$(call say,killing the service and its shims)
	@TRAINER_KILLS=500 TRAINER_SHIM_KILLS=200 cargo test $(CARGO_FLAGS) -p e2e --test e2e -- --nocapture kills::

# What the tests against Kubernetes need, and not every machine has.
GO := $(shell command -v go)

.PHONY: control-plane
control-plane: ## Build the Kubernetes control plane for tests (needs Go 1.26)
	@e2e/control-plane/build.sh $(TARGET)/control-plane

.PHONY: e2e-kubernetes
ifneq ($(GO),)
e2e-kubernetes: build control-plane ## End-to-end tests against a real Kubernetes control plane
	$(call say,end-to-end tests on Kubernetes: a real API server and the training operator)
	@cargo test $(CARGO_FLAGS) -p e2e --test kubernetes -- --skip speed:: --skip reads::

# What makes the image's static binary, and who may start it as the user that deploy/ gives it.
ifneq ($(and $(shell command -v musl-gcc),$(filter 0,$(shell id -u))),)
.PHONY: e2e-image
e2e-image: image-files build control-plane ## End-to-end test of the image as deploy/ starts it (needs root, musl-gcc)
	$(call say,the image on Kubernetes)
	@cargo test $(CARGO_FLAGS) -p e2e --test kubernetes -- --ignored the_image_serves
else
e2e-image:
	$(call say,no musl-gcc (musl-tools) or not root: the test of the image is left out)
endif

.PHONY: bench-kubernetes
bench-kubernetes: build control-plane ## Measure reads of 10,000 jobs and what a creation costs
	$(call say,measuring on Kubernetes)
	@cargo test $(CARGO_FLAGS) -p e2e --test kubernetes -- --test-threads 1 --nocapture speed:: reads::
else
e2e-kubernetes e2e-image:
	$(call say,no Go toolchain: the end-to-end tests on Kubernetes are left out)
endif

.PHONY: bench
bench: build hostile ## Measure speed, memory and start, and write docs/performance.md
	$(call say,measuring)
	@cargo run $(CARGO_FLAGS) --quiet -p e2e --bin bench

.PHONY: bench-logs
bench-logs: build ## Measure the memory that following a million lines takes
	$(call say,following a million lines)
	@cargo test $(CARGO_FLAGS) -p e2e --test e2e -- --ignored --nocapture following_a_million

.PHONY: bench-connections
bench-connections: build ## Measure health checks and submissions beside 2500 hostile connections
	$(call say,2000 clients that send a byte a second and 500 that read nothing)
	@cargo test $(CARGO_FLAGS) -p e2e --test e2e -- --ignored --nocapture thousands_of_slow

.PHONY: bench-plugins
bench-plugins: build hostile ## Measure plugins of each language, and write docs/plugin-performance.md
	$(call say,measuring plugins)
	@cargo run $(CARGO_FLAGS) --quiet -p e2e --bin bench_plugins

.PHONY: bench-trainer
bench-trainer: python ## Measure checkpoints and starts of the trainer image, write docs/performance-trainer.md
	$(call say,measuring the trainer image)
	@cd trainer && $(ENVIRONMENT)/bin/python tests/bench.py > $(TARGET)/performance-trainer.md
	@mv $(TARGET)/performance-trainer.md docs/performance-trainer.md

# What builds images: docker, podman or buildah.
IMAGE_TOOL ?= docker
IMAGE ?= ghcr.io/deepfinery/trainer-host:0.1.0
STATIC_TARGET := $(shell uname -m)-unknown-linux-musl

.PHONY: image
image: image-files ## Build the service's image (needs docker, podman or buildah; IMAGE_TOOL=... names it)
	$(call say,building $(IMAGE))
	@$(IMAGE_TOOL) build --quiet --tag $(IMAGE) --file deploy/Dockerfile $(TARGET)/image

.PHONY: image-files
image-files: plugins # What goes into the image (needs musl-gcc, from musl-tools)
	$(call say,building the static binary (the first time takes some minutes))
	@rustup target list --installed | grep -qx $(STATIC_TARGET) || rustup target add $(STATIC_TARGET)
	@cargo build $(CARGO_FLAGS) --target $(STATIC_TARGET) -p trainer-host
	@rm -rf $(TARGET)/image
	@mkdir -p $(TARGET)/image/data
	@cp target/$(STATIC_TARGET)/release/trainer $(TARGET)/image/
	@cp -r target/plugins $(TARGET)/image/

.PHONY: docs
docs: build ## Write docs/frameworks from the plugins
	@mkdir -p docs/frameworks
	@for framework in $(FRAMEWORKS); do \
		target/release/trainer explain $$framework --output markdown > docs/frameworks/$$framework.md; \
	done

.PHONY: known-options
known-options: python ## Write the options of torchrun and the frameworks from their source
	@cd trainer && $(ENVIRONMENT)/bin/python tests/known_options.py ../plugins/sdk/known

.PHONY: openapi
openapi: build ## Write docs/openapi.json from the types
	@UPDATE_OPENAPI=1 cargo test $(CARGO_FLAGS) -p trainer-host --test integration -- describes_itself

.PHONY: contract
contract: build $(TARGET)/schemathesis/.installed ## Test a running service against its OpenAPI document
	$(call say,five thousand and more requests made from docs/openapi.json)
	@SCHEMATHESIS=$(TARGET)/schemathesis/bin/schemathesis cargo test $(CARGO_FLAGS) -p e2e --test e2e -- --ignored contract

$(TARGET)/schemathesis/.installed: e2e/requirements.txt
	@$(PYTHON) -m venv $(TARGET)/schemathesis
	@$(TARGET)/schemathesis/bin/pip install --quiet --disable-pip-version-check -r e2e/requirements.txt
	@touch $@

.PHONY: snapshots
snapshots: plugins ## Accept the previews as they are now
	@INSTA_UPDATE=always INSTA_FORCE_PASS=1 cargo test $(CARGO_FLAGS) -p snapshots

.PHONY: deny
deny: ## Check licences and advisories of the dependencies (needs cargo-deny)
	@command -v cargo-deny >/dev/null || { echo "==> cargo-deny is missing: cargo install --locked cargo-deny"; exit 1; }
	@cargo deny check

.PHONY: clean
clean: ## Remove everything that was built
	@cargo clean
