# Checks of the dependencies.

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
	@$(AUDIT)/python/bin/pip-audit --disable-pip --no-deps --require-hashes -r trainer/lock-cuda-hashes.txt

$(AUDIT)/.installed:
	@echo "==> installing cargo-deny, cargo-machete and pip-audit (some minutes)"
	@cargo install --quiet --locked --root $(AUDIT) cargo-deny cargo-machete
	@$(PYTHON) -m venv $(AUDIT)/python
	@$(AUDIT)/python/bin/pip install --quiet --disable-pip-version-check pip-audit
	@touch $@
