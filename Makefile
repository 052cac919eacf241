# make demo: the core alone, then the demo.   make test: everything, then the whole suite.
# Both virtual environments are made here and ignored by git; remove the folders to start over.
PYTHON ?= python3
PIP_OPTIONS = --quiet --disable-pip-version-check
DEV = .venv-dev/bin

.PHONY: demo test lint unit coverage wheel browser notebooks pages tutorial docs nightly audit release lock clean help

help:
	@echo "make demo     install the core into .venv (no PyTorch) and run topgraft demo"
	@echo "make test     install everything into .venv-dev, lint, and run the whole suite on the wheel"
	@echo "make docs     build the site into site/, strictly"
	@echo "make pages    write the generated pages of docs/ anew"
	@echo "make tutorial run the tutorial's commands and write what they print"
	@echo "make notebooks  run the notebooks and the tutorial from top to bottom"
	@echo "make nightly  the long tests too"
	@echo "make audit    an SBOM of the locked core in dist/sbom.json, and known holes in what is locked"
	@echo "make coverage  which lines the suite runs"
	@echo "make browser  Chromium and axe-core, for the tests that open the report"
	@echo "make release  wheel and sdist into dist/, checked as an index would"
	@echo "make lock     write locks/ anew from fresh environments"

# Without --no-compile pip writes 100 MB of bytecode, most of it of modules that are never imported.
demo: .venv/installed
	.venv/bin/topgraft demo

.venv/installed: pyproject.toml locks/core.txt $(shell find src -type f -not -name '*.pyc')
	test -d .venv || $(PYTHON) -m venv .venv
	.venv/bin/pip install $(PIP_OPTIONS) --no-compile -c locks/core.txt .
	touch $@

.venv-dev/installed: pyproject.toml locks/dev.txt
	test -d .venv-dev || $(PYTHON) -m venv .venv-dev
	$(DEV)/pip install $(PIP_OPTIONS) -c locks/dev.txt --upgrade pip
	$(DEV)/pip install $(PIP_OPTIONS) -c locks/dev.txt --group dev '.[all]'
	touch $@

# The wheel is what users get, so the wheel is what is tested.
wheel: .venv-dev/installed
	rm -rf dist
	$(DEV)/python -m build --wheel --outdir dist . > /dev/null
	$(DEV)/pip install $(PIP_OPTIONS) --no-deps --force-reinstall dist/*.whl

# Wheel and sdist, as they would be uploaded; nothing is.
release: .venv-dev/installed
	rm -rf dist
	$(DEV)/python -m build --outdir dist . > /dev/null
	$(DEV)/python -m twine check --strict dist/*

lint: .venv-dev/installed
	$(DEV)/ruff format --check .
	$(DEV)/ruff check .
	for system in linux win32 darwin; do $(DEV)/mypy --platform $$system --cache-dir .mypy_cache/$$system || exit 1; done
	PYTHONPATH=src $(DEV)/lint-imports

# As many processes as cores; a file's tests stay together, since they share what is expensive to make.
unit: wheel
	$(DEV)/pytest -n $(shell nproc) --dist loadfile

coverage: wheel
	$(DEV)/pytest --cov --cov-report=term:skip-covered

test: lint unit

pages: .venv-dev/installed
	PYTHONPATH=src $(DEV)/python tools/pages.py

tutorial: wheel
	PATH="$(CURDIR)/$(DEV):$$PATH" $(DEV)/python tools/tutorial.py

docs: .venv-dev/installed
	$(DEV)/zensical build --clean --strict

notebooks: wheel
	$(DEV)/pytest tests/test_notebooks.py tests/test_pages.py -m nightly

nightly: wheel
	$(DEV)/pytest -m "nightly or not nightly"

# What the core brings, as CycloneDX lists it; then what is known of it, which asks a network: --strict fails where it
# could not ask.
audit: .venv-audit/installed
	mkdir -p dist
	.venv-audit/bin/cyclonedx-py requirements locks/core.txt --pyproject pyproject.toml --output-reproducible \
	  --output-format JSON --output-file dist/sbom.json
	for lock in core dev; do .venv-audit/bin/pip-audit --strict --disable-pip --no-deps -r locks/$$lock.txt || exit 1; done

.venv-audit/installed: pyproject.toml
	test -d .venv-audit || $(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install $(PIP_OPTIONS) --upgrade pip
	.venv-audit/bin/pip install $(PIP_OPTIONS) --group audit
	touch $@

browser:
	which chromium > /dev/null || (apt-get update -q && apt-get install -qy --no-install-recommends chromium)
	npm ci --silent

lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install $(PIP_OPTIONS) . && .venv-lock/bin/pip freeze --exclude topgraft > locks/core.txt
	.venv-lock/bin/pip install $(PIP_OPTIONS) --upgrade pip
	.venv-lock/bin/pip install $(PIP_OPTIONS) -c locks/core.txt --group dev '.[all]'
	.venv-lock/bin/pip freeze --all --exclude topgraft --exclude setuptools > locks/dev.txt
	rm -rf .venv-lock

clean:
	rm -rf .venv .venv-dev .venv-audit dist build site .cache node_modules
