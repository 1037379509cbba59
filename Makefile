# The habits of this project. `make` alone lists them.

PYTHON ?= python3
# Tests wait more than they count: three processes keep two cores busy. A file stays with one process.
JOBS ?= 3
DATA ?= ./data
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# What the tests run beside Python: DICOM and HTTP clients, a database, a browser, a tracer, a proxy, makers of videos and HEIC.
DEBIAN_PACKAGES := chromium chromium-driver curl dcmtk ffmpeg libheif-examples nginx openssl postgresql strace

.DEFAULT_GOAL := help
.PHONY: help run test test-all conformance-table check lint bench docs tools clean

help:
	@echo "make run       install into $(VENV), take in a sample, serve it on loopback (DATA=$(DATA), OPTIONS='--http 127.0.0.1:8081')"
	@echo "make test      install what the tests need, run them in their short forms (ARGS='-k name')"
	@echo "make test-all  the same in their long forms"
	@echo "make conformance-table  every clause of the standard we are held to, the tests that show it, and what came of them"
	@echo "make check     format, lint, types, layers and unit tests; before every commit"
	@echo "make bench     where the time goes, and ratios to a peer when its harness is here"
	@echo "make docs      write the generated documents"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "pacslite needs Python 3.11 or later; name one with make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing pacslite into $(VENV)"
	@PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(PIP) install -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "installing what the tests need into $(VENV)"
	@PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(PIP) install -e '.[test,dev]'
	@touch $@

run: $(VENV)/.installed
	@$(BIN)/pacslite migrate --data $(DATA)
	@# Once: a sample that somebody has deleted stays away.
	@test -e $(DATA)/.sampled || { $(BIN)/pacslite samples --data $(DATA) && touch $(DATA)/.sampled; }
	@if command -v node >/dev/null && command -v npm >/dev/null; then \
		$(BIN)/pacslite viewer install --data $(DATA) || echo "The viewer is left out; everything else runs."; \
	else \
		echo "node and npm are not on PATH: the viewer is left out; install them and run 'make run' again."; \
	fi
	@echo "Nobody is asked to log in (--no-auth), so only this machine is served. '$(BIN)/pacslite serve --data $(DATA)',"
	@echo "without --no-auth, turns accounts on: its first start prints the name and password of an administrator."
	@$(BIN)/pacslite serve --no-auth --data $(DATA) $(OPTIONS)

# RUNLEVEL=1 keeps Debian from starting the services it installs; the tests start their own, on free ports.
tools:
	@missing=""; for package in $(DEBIAN_PACKAGES); do \
		dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then echo "the tests also want:$$missing"; exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then sudo=""; elif sudo -n true 2>/dev/null; then sudo="sudo"; else \
		echo "install these for all tests (neither root nor sudo here):$$missing"; exit 0; fi; \
	echo "installing$$missing"; \
	$$sudo apt-get -qq update && \
	$$sudo env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing >/dev/null

test: tools $(VENV)/.installed-test
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-all: tools $(VENV)/.installed-test
	@PACSLITE_TEST_FULL=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

conformance-table: tools $(VENV)/.installed-test
	@$(BIN)/python -m tests.support.conformance_table $(ARGS)

lint: $(VENV)/.installed-test
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

check: lint
	@$(BIN)/python -m pytest -q tests/unit

bench: $(VENV)/.installed-test
	@$(BIN)/python bench/micro.py
	@$(BIN)/python bench/side_by_side.py $(ARGS)

docs: $(VENV)/.installed
	@$(BIN)/python -m pacslite.documents docs conf

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
