# The Python client: checks, and tests against the real service.

CLIENT := $(TARGET)/client
.PHONY: test-client
test-client: build python $(CLIENT)/.installed ## Check the Python client, and test it against the service
	@echo "==> testing the Python client"
	@cd clients/python && $(CLIENT)/bin/ruff check --quiet . && $(CLIENT)/bin/ruff format --quiet --check .
	@cd clients/python && $(CLIENT)/bin/mypy --no-error-summary src tests generate_async.py
	@cd clients/python && TRAINER_TEST_PYTHON=$(ENVIRONMENT) $(CLIENT)/bin/pytest -q

$(CLIENT)/.installed: clients/python/pyproject.toml clients/python/requirements-test.txt
	@$(PYTHON) -m venv $(CLIENT)
	@cd clients/python && $(CLIENT)/bin/pip install --quiet --disable-pip-version-check \
		-e '.[checkpoints,pandas]' -r requirements-test.txt
	@touch $@
