# Measurements. They print or write figures; CI does not run them.

.PHONY: bench
bench: build hostile ## Measure speed, memory and startup, and write docs/performance.md
	@echo "==> measuring the service"
	@cargo run $(CARGO_FLAGS) --quiet -p e2e --bin bench

.PHONY: bench-logs
bench-logs: build ## Measure what it takes to follow a million log lines, and to read the metrics of a million steps
	@echo "==> following a million log lines, and reading the metrics of a million steps"
	@cargo test $(CARGO_FLAGS) -p e2e --test e2e -- --ignored --nocapture --test-threads 1 following_a_million a_million_steps

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

.PHONY: access-speed
access-speed: build ## Compare a service with 10,000 tokens and a policy to one without
	@cargo test $(CARGO_FLAGS) -p trainer-host --test integration -- --ignored --nocapture tokens_and_policies

.PHONY: isolation-timing
isolation-timing: build ## Measure whether response times reveal runs of other namespaces
	@cargo test $(CARGO_FLAGS) -p trainer-host --test integration -- --ignored --nocapture response_times_do_not

.PHONY: isolation
isolation: build ## Send 100,000 generated requests of a caller who may not see another namespace
	@ACCESS_REQUESTS=100000 cargo test $(CARGO_FLAGS) -p trainer-host --test integration -- --nocapture another_namespace
