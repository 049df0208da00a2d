# Every target makes the virtual environment that it needs. PYTHON names the interpreter (3.11 or newer).
PYTHON ?= python3
VENV ?= .venv
SOURCE ?= sample
WORKSPACE ?= workspace
BIN := $(VENV)/bin
# Processes that run tests. Each has one thread of torch and takes some 2 GB at most.
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN)

# Where `make test-labelling-tool` installs Label Studio.
LABEL_STUDIO ?= .venv-label-studio

# More than cores: these tests wait for timers of the server and for each other's processes.
SERVICE_WORKERS ?= 3

.PHONY: run test test-services test-labelling-tool test-slow check format docs pictures bench bench-gpu clean

# The sample source is built once: written again, its files would look changed. README.txt is its last file.
run: $(VENV)/.installed-dev
	@if [ "$(SOURCE)" = sample ] && [ ! -f sample/README.txt ]; then $(BIN)/python -m tests.sample_source sample; fi
	$(BIN)/wtl run "$(SOURCE)" --workspace "$(WORKSPACE)" $(if $(RECIPE),--recipe "$(RECIPE)")
	@command -v wtl >/dev/null || echo "In this shell, first: . $(BIN)/activate" >&2

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

# Latency is held to a minute, so it has the machine alone. Priorities are no help: servers and runs have sessions of their
# own, and Linux shares the cores among sessions, whatever the niceness of the processes in them.
test-services: $(VENV)/.installed-dev $(VENV)/.installed-axe
	$(BIN)/python -m pytest -q -m services -n $(SERVICE_WORKERS) --dist loadfile \
		--ignore=tests/services/test_latency.py tests/services tests/browser
	$(BIN)/python -m pytest -q -m services tests/services/test_latency.py

# Three rounds with a real Label Studio, which pins much and so has an environment of its own; some minutes.
test-labelling-tool: $(VENV)/.installed-dev $(LABEL_STUDIO)/bin/label-studio
	WTL_LABEL_STUDIO="$(abspath $(LABEL_STUDIO))/bin/label-studio" \
		$(BIN)/python -m pytest -q -m services tests/services/test_labelling_tool.py

$(LABEL_STUDIO)/bin/label-studio:
	$(PYTHON) -m venv $(LABEL_STUDIO)
	$(LABEL_STUDIO)/bin/pip install --quiet "label-studio==1.23.2"

# Hostile test images of Pillow, libtiff and libpng (fetched by pip and apt-get), and many kills: some minutes. The image
# on a clean Debian (as root, with buildah, netavark and debootstrap) and the Kubernetes template: some minutes more.
test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m slow tests/core tests/flows tests/services

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed-dev
	$(BIN)/python -m tests.docs

# Needs Chromium: figures of docs/concepts.md, the notebook, then the output and picture of a first run in README.md.
pictures: $(VENV)/.installed-bench
	$(BIN)/python -m tests.docs_figures
	$(BIN)/python -m tests.docs_notebook
	$(BIN)/python -m tests.docs_first_run

bench: $(VENV)/.installed-bench
	@for bench in $(filter-out %/bench_gpu.py,$(wildcard tests/bench/bench_*.py)); do echo "== $$bench"; PYTHONPATH=. $(BIN)/python $$bench || exit 1; done

# What waits for a GPU, in nine minutes; the machine's own Python where PYTHON names one that has torch for its GPU.
bench-gpu:
	PYTHONPATH=. $(PYTHON) tests/bench/bench_gpu.py

# The newest pip that setuptools' licence fields and dependency groups need; pip itself picks torch's build.
$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"

$(VENV)/.installed-dev: $(VENV)/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[packaged]" --group dev
	@touch $@

# axe-core looks for what keeps people out of the report; without npm the tests of that are skipped.
$(VENV)/.installed-axe: $(VENV)/bin/pip
	@if command -v npm >/dev/null; then npm install --silent --no-save --prefix $(VENV) axe-core@4.14.1; \
		else echo "npm is not installed: the report's accessibility is not tested" >&2; fi
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --constraint constraints.txt --group bench
	@touch $@

clean:
	rm -rf $(VENV) sample workspace test-output
