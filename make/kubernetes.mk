# Tests on a real Kubernetes control plane (needs Go), and the image.

.PHONY: control-plane
control-plane: ## Build the Kubernetes control plane for the tests (needs Go 1.26)
	@e2e/control-plane/build.sh $(TARGET)/control-plane

HELM := $(TARGET)/helm/helm

.PHONY: helm
helm: $(HELM) # Build Helm for the tests of the chart (needs Go 1.26)

$(HELM): tools/helm/go.sum
	@echo "==> building Helm (this takes 1 to 3 minutes)"
	@cd tools/helm && GOWORK=off go build -trimpath -gcflags 'all=-N -l' -ldflags '-s -w' -o $@ helm.sh/helm/v4/cmd/helm

.PHONY: e2e-kubernetes
ifneq ($(GO),)
e2e-kubernetes: build control-plane helm ## Run the end-to-end tests on a real Kubernetes control plane
	@echo "==> running the end-to-end tests on Kubernetes with a real API server and training operator"
	@cargo test $(CARGO_FLAGS) -p e2e --test kubernetes -- --skip speed:: --skip reads::

.PHONY: old-plugins
old-plugins: build control-plane ## Start jobs with plugins that an early version has built
	@PYTHON=$(PYTHON) e2e/old-plugins.sh $(TARGET)/old-plugins
	@cargo test $(CARGO_FLAGS) -p e2e --test kubernetes -- --ignored old_plugins::

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
e2e-kubernetes e2e-queues e2e-image old-plugins:
	@echo "==> skipping the end-to-end tests on Kubernetes: they need Go"
endif

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
