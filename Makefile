# make demo | test | check | bench: each sets up what it needs into .venv and a cache outside the tree.
.DELETE_ON_ERROR:
PYTHON ?= python3
V := .venv/bin

.PHONY: help install demo test acceptance check format lock bench tools-kube clean
help:
	@echo "make demo    set up and run the main job on real parts (MINUTES=7)"
	@echo "make test    set up and pass every test"
	@echo "make acceptance   the six lines of the definition of done, and what was seen of each"
	@echo "make check   format, lint, types, layers, rules"
	@echo "make bench   the benchmarks"
	@echo "make tools-kube   build a real Kubernetes control plane for the tests, once, without containers (needs Go)"

install: .venv/.installed

.venv/.installed: requirements.lock demo/requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Tidewise needs Python 3.11 to 3.14; found %s. Set PYTHON=python3.x" % sys.version.split()[0] if not (3, 11) <= sys.version_info[:2] <= (3, 14) else 0)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv is missing: install the package python3-venv" >&2; exit 1; }
	@echo "Setting up .venv (about half a minute)"
	@test -x $(V)/python || $(PYTHON) -m venv .venv
	@$(V)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(V)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r demo/requirements.lock
	@$(V)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: install
	@$(V)/python -m demo $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

test: install
	@$(V)/python -m testbed.kube build --optional
	@$(V)/python -m tests $(ARGS)

acceptance: install
	@$(V)/python -m pytest tests/acceptance -q --no-header $(ARGS)

tools-kube: install
	@$(V)/python -m testbed.kube build

check: install
	$(V)/ruff format --check .
	$(V)/ruff check .
	$(V)/mypy
	$(V)/lint-imports

format: install
	$(V)/ruff format .
	$(V)/ruff check --fix .

# The lock: hashes, no addresses. Needs uv (a development tool; not in the lock itself).
lock:
	uv pip compile pyproject.toml --extra all --group dev --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 -o requirements.lock

bench: install
	@for b in benchmarks/[a-z]*.py; do $(V)/python -m benchmarks.$$(basename $$b .py) || exit 1; done

clean:
	rm -rf .venv .demo
