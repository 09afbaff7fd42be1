# make lab      builds the environment and opens JupyterLab on the first notebook
# make test     everything that must hold: lint, unit tests, notebooks, browser
# make quick    lint and the unit tests that take no more than a second each (under three minutes)
#
# make format   formats code and notebooks          make execute   runs all notebooks and saves their outputs
# make bench    speed and quality ratios, in one run make clean     removes what make built
# make slow     the widest sweeps (every pipeline with every scheduler), and networks at their published sizes

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help lab test quick lint unit notebooks browser format execute bench slow clean

VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
VERSIONS = $(shell sed -n 's/^ *- \([a-z0-9-]*==[^ ]*\)$$/\1/p' environment.yml)
LAB_ARGS ?=
WORKERS ?= 2

# The lessons need no network, and their saved outputs no progress bars.
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
# See workbench/__init__.py; here for programs that load torch first.
export OMP_WAIT_POLICY := passive

help:
	@sed -n 's/^# //p' Makefile

lab: $(READY)
	@$(VENV)/bin/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_ARGS) notebooks/00_start.ipynb

test: lint unit notebooks browser

quick: lint
	$(RUN) -m pytest tests --ignore tests/browser -n $(WORKERS) -m 'not slow and not long'

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

unit: $(READY)
	$(RUN) -m pytest tests --ignore tests/browser -n $(WORKERS)

notebooks: $(READY)
	TQDM_DISABLE=1 OMP_NUM_THREADS=1 $(RUN) -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=90 \
		-p no:cacheprovider -n $(WORKERS) --dist loadfile --durations 5 notebooks

browser: $(READY)
	@command -v chromium chromium-browser google-chrome >/dev/null || \
		{ echo "Missing: chromium, for the browser test. Install it with: sudo apt-get install chromium" >&2; exit 1; }
	$(RUN) -m pytest tests/browser

format: $(READY)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

execute: $(READY)
	TQDM_DISABLE=1 $(RUN) -m nbconvert --to notebook --execute --inplace --ExecutePreprocessor.timeout=90 \
		--ExecutePreprocessor.record_timing=False --ExecutePreprocessor.store_widget_state=False notebooks/*.ipynb

bench: $(READY)
	@for script in tests/benchmarks/bench_*.py; do echo "== $$script"; $(RUN) $$script; done

slow: $(READY)
	$(RUN) -m pytest tests --ignore tests/browser -m slow

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache out

# The environment. The mark is set last, so an interrupted build goes on where it stopped. The settings: photographs of
# more than 10 MB can be uploaded; widgets stay alive while scrolled out of sight; nothing asks the network for news.
$(READY): environment.yml pyproject.toml
	@python=; for p in $${PYTHON:-python3.11 python3.12 python3.13 python3}; do \
		if "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; \
		then python=$$p; break; fi; done; \
	if [ -z "$$python" ]; then \
		echo "Missing: Python 3.11. Install it with: sudo apt-get install python3.11 python3.11-venv" >&2; exit 1; fi; \
	if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
		echo "Missing: Python's venv module. Install it with: sudo apt-get install $$(basename $$python)-venv" >&2; exit 1; fi; \
	if ! $(VENV)/bin/python -m pip --version >/dev/null 2>&1; then rm -rf $(VENV); "$$python" -m venv $(VENV); fi; \
	echo "Building the environment in $(VENV): a few minutes the first time, nothing later."; \
	$(RUN) -m pip install --quiet --disable-pip-version-check $(VERSIONS) || \
		{ echo "Could not install the packages. Check the network and run make again: it goes on where it stopped." >&2; exit 1; }
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@mkdir -p $(VENV)/share/jupyter/lab/settings $(VENV)/etc/jupyter
	@echo '{"ServerApp": {"tornado_settings": {"websocket_max_message_size": 134217728}}}' \
		> $(VENV)/etc/jupyter/jupyter_server_config.json
	@printf '%s\n' '{"@jupyterlab/notebook-extension:tracker": {"windowingMode": "defer"},' \
		' "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' \
		> $(VENV)/share/jupyter/lab/settings/overrides.json
	@touch $(READY)
