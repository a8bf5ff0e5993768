# `make production` and `make test` set up what they need. `make` alone lists the rest.
AS_OF  ?= 2024-06-28
PYTHON ?= python3
READY  := .venv/.ready
PEERS  := .peers/.ready
INSIDE := . .venv/bin/activate &&
LOCK   := uv pip compile --universal --generate-hashes --python-version 3.11 --upgrade --no-strip-extras --no-emit-index-url \
  --no-emit-find-links --no-header
MAKEFLAGS += --no-print-directory

help: ## This list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' Makefile | expand -t 14

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "QuantETF needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up .venv (once; a minute or two)"
	@$(PYTHON) -m venv .venv
	@$(INSIDE) python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(INSIDE) python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(PEERS): benchmarks/peers.lock | $(READY)
	@echo "Setting up .peers, the engines to compare with (once; about a minute)"
	@rm -rf .peers
	@$(PYTHON) -m venv .peers
	@.peers/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r benchmarks/peers.lock
	@touch $@

setup: $(READY) ## The environment, and nothing else

production: $(READY) ## Recommendation packet of AS_OF (2024-06-28) on the default dataset
	$(INSIDE) cd nbs && papermill production.ipynb -p as_of $(AS_OF)

peers: $(PEERS) ## Other people's engines, in an environment of their own

test: $(READY) $(PEERS) ## Everything: notebooks and modules in step, style, every notebook's cells, tests
	@$(INSIDE) python tools/in_step.py
	@$(INSIDE) ruff check .
	@$(INSIDE) pytest

lab: $(READY) ## JupyterLab, on the notebooks
	$(INSIDE) jupyter lab --LabApp.default_url=/lab/tree/nbs $(if $(filter 0,$(shell id -u)),--allow-root)

export: $(READY) ## Modules and README from the notebooks, notebooks cleaned
	@$(INSIDE) python tools/in_step.py || true

readme: $(READY) ## README.md from nbs/index.ipynb
	@$(INSIDE) python tools/readme.py

bench: $(READY) $(PEERS) ## Speed
	@$(INSIDE) for f in benchmarks/*.py; do python "$$f" || exit 1; done

lock: $(READY) ## New versions into requirements.lock
	$(INSIDE) $(LOCK) pyproject.toml --extra dev -o requirements.lock
	$(INSIDE) $(LOCK) benchmarks/peers.in -o benchmarks/peers.lock

clean: ## Removes the environment and caches; data and runs stay
	rm -rf .venv .peers build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

.PHONY: help setup peers production test lab export readme bench lock clean
