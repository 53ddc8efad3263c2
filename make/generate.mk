# Files that are generated from the code and committed.

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

.PHONY: snapshots
snapshots: plugins ## Accept the current previews as snapshots
	@INSTA_UPDATE=always INSTA_FORCE_PASS=1 cargo test $(CARGO_FLAGS) -p snapshots
