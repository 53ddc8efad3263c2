# The Python environment of the local cluster and its tests.

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
lock: python # Update the lock files of the trainer image to the latest compatible releases
	@$(ENVIRONMENT)/bin/pip install --quiet --disable-pip-version-check uv
	@{ sed -n 1p trainer/lock.txt; cd trainer; $(ENVIRONMENT)/bin/uv pip compile --quiet --universal \
		--python-version 3.10 --no-annotate --no-header --no-emit-index-url requirements-dev.txt; \
	} > $(TARGET)/lock.txt && mv $(TARGET)/lock.txt trainer/lock.txt
	@{ sed -n 1p trainer/lock-hashes.txt; cd trainer; $(ENVIRONMENT)/bin/uv pip compile --quiet --universal \
		--python-version 3.10 --no-annotate --no-header --no-emit-index-url --generate-hashes \
		--constraints lock.txt requirements.txt; \
	} > $(TARGET)/lock.txt && mv $(TARGET)/lock.txt trainer/lock-hashes.txt
	@{ sed -n 1p trainer/lock-cuda-hashes.txt; cd trainer; $(ENVIRONMENT)/bin/uv pip compile --quiet --universal \
		--python-version 3.11 --no-annotate --no-header --no-emit-index-url --generate-hashes \
		--constraints lock.txt requirements.txt requirements-cuda.txt; \
	} > $(TARGET)/lock.txt && mv $(TARGET)/lock.txt trainer/lock-cuda-hashes.txt
	@$(ENVIRONMENT)/bin/python tools/packages.py
