# `make demo` and `make test` install what they need into .venv first.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/installed
# Threads that wait for each other sleep: tests and benchmarks run beside the servers that they look at.
export OMP_WAIT_POLICY ?= passive
PROTOS := protos/florence2/v1/*.proto protos/florence2/engine/v1/*.proto

.PHONY: help
help: ## list what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(INSTALLED): requirements/development.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements/development.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --editable .
	touch $@

.PHONY: install
install: $(INSTALLED) ## install everything into .venv

.PHONY: demo
demo: $(INSTALLED) ## every task on one picture, through a real tritonserver
	PYTHONPATH=model_repository $(BIN)/python examples/demo.py

.PHONY: serve
serve: $(INSTALLED) ## serve in the foreground until Ctrl-C; FLORENCE2_CHECKPOINT chooses the weights
	$(BIN)/python model_repository/serve.py

.PHONY: check
check: $(INSTALLED) ## report what would be served from CHECKPOINT=..., and anything surprising about it
	@$(BIN)/python model_repository/serve.py check "$(CHECKPOINT)"

.PHONY: convert
convert: $(INSTALLED) ## write the checkpoint SOURCE=... to FOLDER=... in transformers' native layout
	$(BIN)/python model_repository/serve.py convert "$(SOURCE)" "$(FOLDER)"

.PHONY: test
test: $(INSTALLED) ## all tests, a real tritonserver included
	$(BIN)/python -m pytest

.PHONY: test-slow
test-slow: $(INSTALLED) ## full-size models, memory over ten thousand requests
	$(BIN)/python -m pytest -m slow

.PHONY: test-faults
test-faults: $(INSTALLED) ## servers that are killed, stopped and poisoned, with figures
	$(BIN)/python -m pytest -m faults

.PHONY: test-gpu
test-gpu: $(INSTALLED) ## parity on a CUDA device
	$(BIN)/python -m pytest -m gpu

.PHONY: test-official
test-official: $(INSTALLED) ## the four official checkpoints in both layouts, against generate(); needs the hub
	$(BIN)/python -m pytest -m official

CHECKOV := build/checkov/installed

$(CHECKOV): requirements/checkov.txt
	rm -rf build/checkov && $(PYTHON) -m venv build/checkov
	build/checkov/bin/python -m pip install --disable-pip-version-check --quiet -r requirements/checkov.txt
	touch $@

.PHONY: test-deploy
test-deploy: $(INSTALLED) $(CHECKOV) ## what is under docker/, with the tools that know it
	$(BIN)/python -m pytest -m deploy

.PHONY: test-package
test-package: ## the client package alone, in an environment of its own
	rm -rf build/package && $(PYTHON) -m venv build/package
	build/package/bin/python -m pip install --disable-pip-version-check --quiet .
	build/package/bin/python tests/package/check_installed.py

.PHONY: lint
lint: $(INSTALLED) ## style, types, protos
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/buf lint
	$(MAKE) --no-print-directory check-protos

.PHONY: protos
protos: $(INSTALLED) ## regenerate the Python messages from protos/
	$(call generate,client)

.PHONY: check-protos
check-protos: $(INSTALLED) ## fail if the generated messages are stale
	rm -rf build/protos && mkdir -p build/protos
	$(call generate,build/protos)
	cd build/protos && find . -type f | while read file; do cmp "$$file" "../../client/$$file" || exit 1; done

define generate
$(BIN)/python -m grpc_tools.protoc --proto_path=protos --python_out=$(1) --pyi_out=$(1) $(PROTOS)
$(BIN)/python -m grpc_tools.protoc --proto_path=protos --grpc_python_out=$(1) protos/florence2/engine/v1/*.proto
endef

LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --no-annotate --custom-compile-command "make locks"

.PHONY: locks
locks: $(INSTALLED) ## lock the images' packages again
	$(LOCK) requirements/server.txt --python-version 3.12 --python-platform x86_64-manylinux_2_39 \
		--output-file docker/requirements-cuda.lock
	$(LOCK) docker/requirements-cpu.in --no-deps --python-version 3.11 --python-platform x86_64-manylinux_2_36 \
		--index https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match \
		--output-file docker/requirements-cpu.lock

.PHONY: bench
bench: $(INSTALLED) ## this server beside the conventional one; wants the machine for itself
	PYTHONPATH=model_repository:model_repository/florence2/1 $(BIN)/python -m benchmarks

.PHONY: bench-quick
bench-quick: $(INSTALLED) ## a short version of bench: too few answers to quote
	PYTHONPATH=model_repository:model_repository/florence2/1 $(BIN)/python -m benchmarks --quick

.PHONY: bench-burst
bench-burst: $(INSTALLED) ## a hundred questions at once beside the same hundred from 16 callers
	PYTHONPATH=model_repository:model_repository/florence2/1 $(BIN)/python -m benchmarks.burst

.PHONY: bench-layouts
bench-layouts: $(INSTALLED) ## load time and memory: native layout, original layout, .bin weights
	PYTHONPATH=model_repository:model_repository/florence2/1 $(BIN)/python -m benchmarks.layouts

.PHONY: bench-pictures
bench-pictures: $(INSTALLED) ## bytes to pixels against Pillow alone, and calls with arrays against calls with JPEGs
	PYTHONPATH=model_repository:model_repository/florence2/1 $(BIN)/python -m benchmarks.pictures

.PHONY: capacity
capacity: $(INSTALLED) ## how much one replica holds on this machine, and how many a fleet needs
	PYTHONPATH=model_repository:model_repository/florence2/1 $(BIN)/python -m benchmarks.size_fleet

.PHONY: train
train: $(INSTALLED) ## train the demo checkpoint; stops and resumes (training/README.md)
	$(BIN)/python -m training.train

.PHONY: evaluate
evaluate: $(INSTALLED) ## the demo checkpoint's figures on 1,000 held-out scenes
	$(BIN)/python -m training.evaluate

.PHONY: clean
clean: ## remove everything that was made
	rm -rf .venv build out
