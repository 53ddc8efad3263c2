# Test suites beyond `make test`, and what the suites need.

# A real OCI registry for the supply chain tests: the Debian package, unpacked but not installed.
.PHONY: registry
registry:
	@[ -x $(TARGET)/registry/usr/bin/docker-registry ] \
	|| { command -v apt-get >/dev/null && command -v dpkg >/dev/null && mkdir -p $(TARGET)/registry \
		&& cd $(TARGET)/registry && apt-get download docker-registry >/dev/null 2>&1 \
		&& dpkg -x docker-registry_*.deb . && rm docker-registry_*.deb; } \
	|| echo "==> skipping the registry tests: they need Debian's docker-registry (apt-get)"
	@command -v npm >/dev/null || echo "==> skipping the tests of JavaScript plugins: they need npm"

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

.PHONY: test-kills
test-kills: build ## Kill the service 500 times and its shims 200 times while jobs run
	@echo "==> killing the service and its shims while jobs run"
	@TRAINER_KILLS=500 TRAINER_SHIM_KILLS=200 cargo test $(CARGO_FLAGS) -p e2e --test e2e -- --nocapture kills::

CONTRACT := $(TARGET)/contract
.PHONY: contract
contract: build $(CONTRACT)/.installed ## Test a running service against its OpenAPI document, and generate clients (needs npm)
	@echo "==> sending more than 5000 requests generated from the OpenAPI document, and generating clients"
	@TRAINER_CONTRACT_TOOLS=$(CONTRACT)/python TRAINER_CONTRACT_NODE_MODULES=$(CONTRACT)/node/node_modules \
		cargo test $(CARGO_FLAGS) -p e2e --test e2e -- --ignored contract::

$(CONTRACT)/.installed: e2e/requirements.txt e2e/clients/typescript/package.json
	@$(PYTHON) -m venv $(CONTRACT)/python
	@$(CONTRACT)/python/bin/pip install --quiet --disable-pip-version-check -r e2e/requirements.txt
	@mkdir -p $(CONTRACT)/node
	@cp e2e/clients/typescript/package.json $(CONTRACT)/node/
	@cd $(CONTRACT)/node && npm install --silent --no-audit --no-fund --no-package-lock
	@touch $@
