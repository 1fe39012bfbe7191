# Thin names for scripts/dev.py, which needs nothing but Python: PYTHON scripts/dev.py COMMAND does the same.
PYTHON ?= python3
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install install-torch run serve demo test test-fast crash-test lint fuzz lock audit sbom

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install:  ## install what is missing: .venv for the backend, .venv-ls for Label Studio
	@$(PYTHON) scripts/dev.py install

install-torch:  ## the same, with PyTorch and SAM for the engine sam-xmem (some GB)
	@$(PYTHON) scripts/dev.py install --torch

run:  ## Label Studio with a sample video and the backend, connected and ready to click
	@$(PYTHON) scripts/dev.py run

serve:  ## the backend alone (ARGS="--host 0.0.0.0 --port 9090")
	@$(PYTHON) scripts/dev.py serve $(ARGS)

demo:  ## track the sample video without Label Studio, and write an overlay video
	@$(PYTHON) scripts/dev.py demo

test:  ## all checks and tests, also those in a browser (ARGS go to pytest)
	@$(PYTHON) scripts/dev.py test $(ARGS)

test-fast:  ## all checks and tests but those in a browser and with Prometheus (ARGS go to pytest)
	@$(PYTHON) scripts/dev.py test-fast $(ARGS)

crash-test:  ## kill the backend 200 times while annotators work on it, and compare (ARGS="--kills 20")
	@$(PYTHON) scripts/dev.py crash-test $(ARGS)

lint:  ## style and types alone
	@$(PYTHON) scripts/dev.py lint

fuzz:  ## 10,000 random requests to a server on loopback (ARGS="--requests 1000 --seed 2")
	@$(PYTHON) scripts/dev.py fuzz $(ARGS)

lock:  ## pin what the image is made of, with hashes, in requirements.lock
	@$(PYTHON) scripts/dev.py lock

audit:  ## known vulnerabilities of what the image is made of, if a database answers
	@$(PYTHON) scripts/dev.py audit

sbom:  ## list what the image is made of as CycloneDX JSON (ARGS=file)
	@$(PYTHON) scripts/dev.py sbom $(ARGS)
