# make demo    two DPDK applications exchange packets over ports that podvif made (root)
# make demo-neutron   the same for two pods of a cluster with a real Neutron, from their objects on (root)
# make cluster    a Kubernetes with one node, Multus, Open vSwitch with DPDK and podvif, kept up; make cluster-down ends it (root)
# make test    every tier of tests that this machine can run; as root all of them
# make check   ruff, mypy, import-linter, go vet, generated documentation: no root
# make unit    the unit tests alone: no root, no Open vSwitch, seconds
# make bench   the figures beside their floors, as a table and a plot (root)
# make chaos   random walks against a real node: SEEDS of them, STEPS steps each (root)
# make images  the images of node and controller as OCI archives in build/images, without a registry or an engine
# make venv    .venv with podvif and podvif-cni

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHIM := $(wildcard shim/*.go shim/go.mod)
PYTEST := $(BIN)/python -m pytest

.PHONY: demo demo-neutron cluster cluster-down test kube helm check unit bench chaos images venv debian docs format clean
.DELETE_ON_ERROR:

demo: debian venv
	$(BIN)/podvif demo

demo-neutron: debian $(VENV)/controller
	@scripts/build-kube >/dev/null
	$(BIN)/podvif demo-neutron

cluster: debian $(VENV)/controller
	@scripts/build-kube >/dev/null
	@$(BIN)/python -m podvif.lab.standing up

cluster-down:
	@$(BIN)/python -m podvif.lab.standing down

test: debian check kube helm
	cd shim && go test ./...
	$(PYTEST) $(TESTS)

# Kubernetes for tests/kube, tests/whole, tests/cluster and the bench; seven minutes, once. Where it fails it says why, the tiers are
# skipped, and the bench says what it has not measured.
kube:
	@scripts/build-kube >/dev/null || true
	@scripts/build-kube containerd >/dev/null || true

# helm for tests/chart and tests/cluster; three minutes, once.
helm:
	@scripts/build-helm >/dev/null || true

TESTS ?= tests

unit: $(VENV)/dev
	$(PYTEST) -q tests/unit

check: $(VENV)/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	test -z "$$(gofmt -l shim lab)"
	cd shim && go vet ./...
	$(BIN)/python scripts/generate_docs.py --check

bench: debian $(VENV)/dev kube
	$(BIN)/python -m bench $(BENCH)

SEEDS ?= 5
STEPS ?= 2000

chaos: debian $(VENV)/dev
	$(BIN)/python -m tests.chaos --seeds $(SEEDS) --steps $(STEPS)

images: $(VENV)/dev
	$(BIN)/python scripts/build-image

docs: $(VENV)/dev
	$(BIN)/python scripts/generate_docs.py

format: $(VENV)/dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	gofmt -w shim lab

venv: $(VENV)/podvif

# As root this installs what is missing, else it says what is.
debian:
	@scripts/setup-debian

# The run-time set, exactly as locked, and podvif on top of it. Without --no-deps pip would bring eventlet back.
$(VENV)/podvif: requirements/node.txt pyproject.toml hatch_build.py src/podvif/core/cni.py $(SHIM)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "podvif needs Python 3.11 or newer: set PYTHON" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/node.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/controller: requirements/controller.txt $(VENV)/podvif
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/controller.txt
	@touch $@

$(VENV)/dev: requirements/dev.txt $(VENV)/controller
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	@touch $@

# Newest versions that are at least a week old; the files name no index.  Neutron's own set is apart: it brings eventlet.
COMPILE = ../build/lock/bin/uv pip compile -q --python-version 3.11 --generate-hashes --no-annotate --no-header \
    --exclude-newer "$$(date -u -d '8 days ago' +%F)"
.PHONY: lock
lock: $(VENV)/dev
	$(PYTHON) -m venv build/lock && build/lock/bin/pip install -q uv
	cd requirements && for set in node controller dev; do $(COMPILE) --excludes exclude.txt $$set.in -o $$set.txt; done
	cd requirements && $(COMPILE) neutron-lab.in -o neutron-lab.txt

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
