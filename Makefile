# Needs Python 3.11 or newer with pip and venv, and git; nothing else.
#   make demo     the tour: from a spreadsheet to a tuned model that answers
#   make test     the tests of every day
PYTHON ?= python3
# Words for pip where torch has a build of its own for this machine, such as an index of CPU builds.
TORCH_PIP_ARGS ?=

BIN := .venv/bin
STAMP := .venv/.installed
STARTER := .afina/models/smollm2-135m-instruct/afina.json
PYTEST := $(BIN)/python -m pytest

.PHONY: help install starter demo test smoke test-browser unit check format crash sanitize contract vllm bench docs lock clean
help:
	@sed -n '2,3p' $(firstword $(MAKEFILE_LIST)) | sed 's/^# //'
	@echo "  make unit     the unit ring alone, in under a minute"
	@echo "  make check    formatter, linter, types, layers"
	@echo "  make smoke    the pages in Debian's chromium, a few seconds"
	@echo "  make test-browser  the pages in Debian's chromium"
	@echo "  make crash    at least 50 kills at random moments, and two longer stories"
	@echo "  make sanitize the kernels' tests, each access to memory watched"
	@echo "  make contract three versions of the official client, and 10,000 drawn requests"
	@echo "  make vllm     answers through a vLLM server, which it installs and starts"
	@echo "  make bench    speed beside its peers"
	@echo "  make docs     writes the generated pages anew"

install: $(STAMP)

$(STAMP): requirements/dev.txt requirements/torch.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-compile $(TORCH_PIP_ARGS) -r requirements/torch.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@# pip compiles on one core; a template among the packages' files is no program, and that is well.
	-@$(BIN)/python -m compileall -qq -j 0 .venv/lib
	touch $(STAMP)

starter: $(STARTER)

$(STARTER): | $(STAMP)
	$(BIN)/afina models pull smollm2-135m-instruct --data .afina

demo: $(STAMP) $(STARTER)
	$(BIN)/python examples/bard/tour.py

unit: $(STAMP)
	$(PYTEST) -n 2 -m "not long" tests/unit tests/property tests/test_architecture.py

test: $(STAMP) $(STARTER)
	$(PYTEST) -n 2 -m "not slow" --dist loadgroup tests
	AFINA_TEST_STORE=postgres $(PYTEST) -q -n 2 -m "not slow and not sqlite" tests/unit/store tests/unit/service

smoke: $(STAMP)
	@command -v chromium > /dev/null || { echo "chromium is missing: apt-get install chromium"; exit 1; }
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/browser.txt
	$(PYTEST) -q -m slow -p no:randomly tests/browser/test_smoke.py

test-browser: $(STAMP) $(STARTER)
	@command -v chromium > /dev/null || { echo "chromium is missing: apt-get install chromium"; exit 1; }
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/browser.txt
	$(PYTEST) -m slow -p no:randomly tests/browser

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -q -p no:randomly tests/test_architecture.py

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

crash: $(STAMP) $(STARTER)
	$(PYTEST) -m "slow" tests/crash tests/e2e

sanitize: $(STAMP)
	$(BIN)/python -m tests.sanitized

contract: $(STAMP) $(STARTER)
	$(PYTEST) -m "slow" tests/contract

vllm: $(STAMP) $(STARTER)
	$(BIN)/python tests/vllm/ring.py

bench: $(STAMP) $(STARTER)
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.serving

docs: $(STAMP)
	$(BIN)/python docs/generate.py

lock:
	requirements/lock.sh

clean:
	rm -rf .venv .cache .afina
