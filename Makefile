# What people type. Every target sets up what it needs; a second call does nothing twice.

VENV := .venv
TARGET := $(or $(CARGO_TARGET_DIR),target)
PTYSTREAM := $(TARGET)/release/ptystream
SEEDS ?= 20
FIRST ?= 0
JOBS ?= 4
SCHEDULES ?= 1000000

.DEFAULT_GOAL := help
.PHONY: help demo test test-compose test-long chaos simulate fuzz lint fmt bench bench-live bench-scaling build venv setup clean

help: ## Lists the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## Simulates a scan, prepares it, and shows what came out.
	@mkdir -p out
	$(PTYSTREAM) run examples/moonflower.toml
	$(PTYSTREAM) inspect out/moonflower.ptyd
	$(PTYSTREAM) picture out/moonflower.ptyd out/moonflower.png

test: venv ## Runs all tests and lints; the last line counts them.
	@tests/tools/test.sh $(VENV)

test-long: venv ## As test, with scans of full length (20,000 frames) where memory is measured.
	@PTYSTREAM_LONG=1 tests/tools/test.sh $(VENV)

test-compose: setup ## Builds the image, and runs compose.yaml under faults.
	@cargo build --quiet
	@tests/compose/run.sh $(TARGET)/debug/ptystream $(TARGET)/compose

chaos: setup ## Runs scans under faults and compares what they leave: SEEDS=20 FIRST=0 JOBS=4.
	@cargo build --quiet
	@$(TARGET)/debug/ptystream chaos --seeds $(SEEDS) --first-seed $(FIRST) --jobs $(JOBS)

simulate: setup ## Runs the cores through SCHEDULES schedules of faults (a million).
	@PTYSTREAM_SCHEDULES=$(SCHEDULES) cargo test -p ptystream --test simulation

fuzz: venv ## Fuzzes the decoders of what comes from outside, FUZZ_SECS (600) each, or TARGETS only; needs a nightly compiler.
	@tests/tools/fuzz.sh $${FUZZ_SECS:-600} $(TARGETS)

lint: setup ## Checks format, clippy and documentation.
	@tests/tools/lint.sh

fmt: ## Formats the Rust sources.
	@cargo fmt --all

bench: setup ## Measures the kernels, and the whole program against the floor of the same work.
	@cargo bench -p ptystream-worker
	@cargo bench -p ptystream --bench pipeline

bench-live: setup ## Measures a detector's stream: frames/s against the floor, the join, latency at a steady 1 kHz.
	@cargo bench -p ptystream --bench live

bench-scaling: venv ## Measures what more workers bring, small frames, and idle MPI ranks; draws docs/scaling.svg.
	@cargo bench --features mpi --bench scaling

build: setup ## Builds the program, optimised.
	@echo "building $(PTYSTREAM)"
	@cargo build --release --quiet

setup: ## Installs by apt what the build needs and what is missing.
	@tests/tools/setup.sh native

venv: ## As setup, and the Python environment of the tests (.venv).
	@tests/tools/setup.sh python $(VENV)

clean: ## Removes whatever the other targets made here.
	@cargo clean --quiet
	@rm -rf $(VENV) out
