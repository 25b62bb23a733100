# `make demo` and `make test` install what they need into .venv first.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/installed
# Threads that wait for each other sleep: tests and benchmarks run beside the servers that they look at.
export OMP_WAIT_POLICY ?= passive
CLIENT_PROTOS := protos/florence2/v1/*.proto
SERVER_PROTOS := protos/florence2_server/v1/*.proto

.PHONY: help
help: ## list all targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(INSTALLED): requirements/development.txt requirements/finetune.txt requirements/server.txt requirements/install.py \
		pyproject.toml server/pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python requirements/install.py
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --editable . --editable server
	touch $@

.PHONY: install
install: $(INSTALLED) ## install everything into .venv

.PHONY: demo
demo: $(INSTALLED) ## run every task on one image, through a real tritonserver
	$(BIN)/python examples/demo.py

.PHONY: pictures
pictures: $(INSTALLED) ## draw the pictures of the README and the guide
	$(BIN)/python examples/pictures.py

.PHONY: serve
serve: $(INSTALLED) ## serve in the foreground until Ctrl-C; FLORENCE2_CHECKPOINT chooses the weights
	$(BIN)/florence2-server

.PHONY: check
check: $(INSTALLED) ## report what would be served from CHECKPOINT=..., and with the adapters in the folders ADAPTERS="..."
	@$(BIN)/florence2-server check "$(CHECKPOINT)" $(patsubst %,--adapter "%",$(ADAPTERS))

.PHONY: convert
convert: $(INSTALLED) ## write the checkpoint SOURCE=... to FOLDER=... in transformers' native layout
	$(BIN)/florence2-server convert "$(SOURCE)" "$(FOLDER)"

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

BULK := build/bulk-environment
PURELIB := import sysconfig; print(sysconfig.get_path("purelib"))

# Its own packages come first, then those of .venv, which include the packages of this repository.
$(BULK)/installed: requirements/bulk-tests.txt $(INSTALLED)
	rm -rf $(BULK) && $(BIN)/python -m venv $(BULK)
	$(BULK)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps -r requirements/bulk-tests.txt
	echo "import site; site.addsitedir('$$($(BIN)/python -c '$(PURELIB)')')" \
		> "$$($(BULK)/bin/python -c '$(PURELIB)')/packages_of_venv.pth"
	touch $@

.PHONY: test-bulk
test-bulk: $(INSTALLED) $(BULK)/installed ## kill bulk runs, and test a local Ray and buckets of moto's S3; prints figures
	$(BULK)/bin/python -m pytest -m bulk

WEB := build/web-environment

$(WEB)/installed: requirements/web-tests.txt $(INSTALLED)
	rm -rf $(WEB) && $(BIN)/python -m venv $(WEB)
	$(WEB)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps -r requirements/web-tests.txt
	echo "import site; site.addsitedir('$$($(BIN)/python -c '$(PURELIB)')')" \
		> "$$($(WEB)/bin/python -c '$(PURELIB)')/packages_of_venv.pth"
	touch $@

.PHONY: test-web
test-web: $(INSTALLED) $(WEB)/installed ## test the web and MCP servers with Chromium, a fuzzer, OpenAI's and MCP's own clients
	$(WEB)/bin/python -m pytest -m web

.PHONY: test-languages
test-languages: $(INSTALLED) ## build the examples in other languages, and run them against a real server
	$(BIN)/python -m pytest -m languages

.PHONY: web-screenshots
web-screenshots: $(INSTALLED) $(WEB)/installed ## take the screenshots of docs/playground.md
	$(WEB)/bin/python -m tests.web.browser.screenshots

CHECKOV := build/checkov/installed

$(CHECKOV): requirements/checkov.txt
	rm -rf build/checkov && $(PYTHON) -m venv build/checkov
	build/checkov/bin/python -m pip install --disable-pip-version-check --quiet -r requirements/checkov.txt
	touch $@

.PHONY: test-deploy
test-deploy: $(INSTALLED) $(CHECKOV) ## test what is in docker/: images, chart, rules, dashboard
	$(BIN)/python -m pytest -m deploy

.PHONY: test-operations
test-operations: $(INSTALLED) ## what operators rely on: metrics, alerts, health, signals, the runbook; with figures
	$(BIN)/python -m pytest -m operations

.PHONY: record-alerts
record-alerts: $(INSTALLED) ## record promtool's tests of the alerts from outages of live servers; minutes
	$(BIN)/python -m tests.operations.recording

.PHONY: test-package
test-package: $(INSTALLED) ## build both wheels, install them into clean environments and use them
	$(BIN)/python -m pytest -m package

.PHONY: lint
lint: $(INSTALLED) ## style, types, import contracts, protos
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	for model in model_repository/*/1/model.py; do $(BIN)/mypy "$$model" || exit 1; done
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/buf lint
	$(MAKE) --no-print-directory check-protos check-breaking

.PHONY: protos
protos: $(INSTALLED) ## regenerate the Python messages from protos/
	$(call generate,client,server)

.PHONY: check-protos
check-protos: $(INSTALLED) ## fail if the generated messages are stale
	rm -rf build/protos && mkdir -p build/protos/client build/protos/server
	$(call generate,build/protos/client,build/protos/server)
	cd build/protos && find . -type f | while read file; do cmp "$$file" "../../$$file" || exit 1; done

# The last commit before the first release: clients built from its messages must keep working.
PUBLISHED := 0d913e2

.PHONY: check-breaking
check-breaking: $(INSTALLED) ## fail if the messages break clients built from those of commit PUBLISHED
	@if git cat-file -e $(PUBLISHED)^{commit} 2> /dev/null; then \
		rm -rf build/published && mkdir -p build/published && \
		git archive $(PUBLISHED) buf.yaml protos | tar --extract --directory build/published && \
		$(BIN)/buf breaking --against build/published; \
	else echo "check-breaking: skipped, because this clone does not have the commit $(PUBLISHED)"; fi

define generate
$(BIN)/python -m grpc_tools.protoc --proto_path=protos --python_out=$(1) --pyi_out=$(1) $(CLIENT_PROTOS)
$(BIN)/python docs/proto_comments.py $(1)/florence2/web/rest/comments.json
$(BIN)/python -m grpc_tools.protoc --proto_path=protos --python_out=$(2) --pyi_out=$(2) --grpc_python_out=$(2) \
	$(SERVER_PROTOS)
endef

DOCS := build/docs-environment

$(DOCS)/installed: requirements/docs.txt
	rm -rf $(DOCS) && $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --disable-pip-version-check --quiet -r requirements/docs.txt
	touch $@

.PHONY: docs
docs: $(DOCS)/installed ## build the documentation's site into build/docs; a warning is an error
	rm -rf build/docs
	$(DOCS)/bin/sphinx-build --conf-dir docs --builder html --doctree-dir build/docs-cache --fail-on-warning \
		--keep-going --quiet . build/docs

.PHONY: screenshots
screenshots: $(INSTALLED) ## draw the command's output on a terminal for docs/commands.md
	$(BIN)/python docs/screenshots.py

LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --no-annotate --custom-compile-command "make locks"

.PHONY: locks
locks: $(INSTALLED) ## update the lock files of the images' packages
	$(LOCK) requirements/server.txt --python-version 3.12 --python-platform x86_64-manylinux_2_39 \
		--output-file docker/requirements-cuda.lock
	$(LOCK) docker/requirements-cpu.in --no-deps --python-version 3.11 --python-platform x86_64-manylinux_2_36 \
		--index https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match \
		--output-file docker/requirements-cpu.lock
	$(LOCK) pyproject.toml docker/requirements-web.in --extra web --constraint requirements/development.txt \
		--python-version 3.11 --python-platform x86_64-manylinux_2_36 --output-file docker/requirements-web.lock

.PHONY: bench
bench: $(INSTALLED) ## this server beside the conventional one; needs an otherwise idle machine
	$(BIN)/python -m benchmarks.comparison

.PHONY: bench-quick
bench-quick: $(INSTALLED) ## a short version of bench: too few answers to quote
	$(BIN)/python -m benchmarks.comparison --quick

.PHONY: bench-burst
bench-burst: $(INSTALLED) ## a hundred requests at once beside the same hundred from 16 callers; BEFORE=... as below
	$(BIN)/python -m benchmarks.comparison.burst \
		$(if $(BEFORE),--before "$(BEFORE)" --before-command "$(BEFORE_COMMAND)")

.PHONY: bench-tasks
bench-tasks: $(INSTALLED) ## eight tasks about an image in one request beside eight requests
	$(BIN)/python -m benchmarks.comparison.task_lists

.PHONY: bench-streams
bench-streams: $(INSTALLED) ## the time to a stream's first event beside that to its last, gRPC and SSE
	$(BIN)/python -m benchmarks.comparison.streams

.PHONY: bench-first-click
bench-first-click: $(INSTALLED) $(WEB)/installed ## from `pip install` into a new environment to a result in Chromium
	$(WEB)/bin/python -m benchmarks.comparison.first_click

.PHONY: bench-bulk
bench-bulk: $(INSTALLED) ## compare a bulk run with a closed loop of as many callers
	$(BIN)/python -m benchmarks.comparison.bulk

.PHONY: bench-commits
bench-commits: $(INSTALLED) ## this commit beside the checkout BEFORE=..., whose server BEFORE_COMMAND=... starts
	$(BIN)/python -m benchmarks.comparison.commits --before "$(BEFORE)" --before-command "$(BEFORE_COMMAND)" \
		--after . --after-command "$(BIN)/python -m florence2_server"

.PHONY: bench-layouts
bench-layouts: $(INSTALLED) ## load time and memory: native layout, original layout, .bin weights
	$(BIN)/python -m benchmarks.kernels.checkpoint_layouts

.PHONY: bench-adapters
bench-adapters: $(INSTALLED) ## decode steps, prefills and new images with adapters beside those without
	$(BIN)/python -m benchmarks.kernels.adapters

.PHONY: bench-score-cost
bench-score-cost: $(INSTALLED) ## compare decode steps with and without the masses of tokens
	$(BIN)/python -m benchmarks.kernels.score_cost

.PHONY: bench-images
bench-images: $(INSTALLED) ## image decoding beside Pillow alone, and sending arrays beside sending JPEGs
	$(BIN)/python -m benchmarks.kernels.images

.PHONY: capacity
capacity: $(INSTALLED) ## the capacity of one replica on this machine, and the size of a fleet
	$(BIN)/python -m benchmarks.capacity

.PHONY: train
train: $(INSTALLED) ## train the demo checkpoint; an interrupted run resumes (training/demo/README.md)
	$(BIN)/python -m training.demo.train

.PHONY: evaluate
evaluate: $(INSTALLED) ## evaluate the demo checkpoint on 1,000 held-out scenes
	$(BIN)/python -m training.demo.evaluate

.PHONY: evaluate-scores
evaluate-scores: $(INSTALLED) ## measure the calibration of the demo checkpoint's scores, on 2,000 images; minutes
	$(BIN)/python -m training.evaluate_scores

.PHONY: finetune-demo
finetune-demo: $(INSTALLED) ## teach the demo checkpoint a new question in the notebook examples/finetune.ipynb; minutes
	$(BIN)/python -m tests.examples.notebook examples/finetune.ipynb

AUDIT := build/audit/installed

$(AUDIT): requirements/audit.txt
	rm -rf build/audit && $(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --disable-pip-version-check --quiet -r requirements/audit.txt
	touch $@

test-package: $(AUDIT)

.PHONY: sbom
sbom: $(INSTALLED) $(AUDIT) ## write CycloneDX bills of the images' Python packages into build/sbom
	build/audit/bin/python -m requirements.sbom build/sbom --environment $(BIN)/python

.PHONY: audit
audit: $(AUDIT) ## look up known vulnerabilities of the images' Python packages; needs PyPI
	build/audit/bin/python -m requirements.audit

.PHONY: clean
clean: ## remove everything that these targets made
	rm -rf .venv build out
