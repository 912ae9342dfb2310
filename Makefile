# Every target makes what it needs: a virtual environment in .venv, the dependencies at the versions of
# requirements.lock, and, on Debian as root, the system packages that the tests use. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := install
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip -qq --disable-pip-version-check

# The tests drive the live view in a real terminal (tmux), look at processes (ps), compare our supervisors with
# Erlang's own, keep journals on a PostgreSQL server, and make machines of bubblewrap, a dockerd (its image is made of
# busybox and the tests' own Python), an sshd, and hosts of network namespaces (ip): all of them are started by the tests themselves, on sockets and ports
# of their own. pyright runs on Node.
DEBIAN_PACKAGES := tmux procps erlang-base postgresql bubblewrap docker.io busybox-static openssh-server openssh-client iproute2
DEBIAN_CHECK_PACKAGES := nodejs

# 3.11 first: it is what requirements.lock was made with.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3.14 python3,$(shell \
	$(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))

# Processes that share the tests, file by file. More than four would be in each other's way: many tests start their own.
PYTEST_WORKERS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); echo $$((cores > 4 ? 4 : cores)))

# Keeps Debian from starting the system's own daemons with the packages: nobody asked for an sshd here.
POLICY := /usr/sbin/policy-rc.d

# $(call debian,PACKAGES) installs those that are missing, on Debian as root; elsewhere it does nothing.
define debian
	@if [ "$$(id -u)" = 0 ] && command -v dpkg-query >/dev/null; then \
		missing=""; for package in $(1); do \
			dpkg-query --show --showformat='$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed \
				|| missing+=" $$package"; \
		done; \
		if [ -n "$$missing" ]; then \
			echo "installing Debian packages:$$missing"; \
			export DEBIAN_FRONTEND=noninteractive; \
			if [ ! -e $(POLICY) ]; then \
				printf '#!/bin/sh\nexit 101\n' >$(POLICY); chmod +x $(POLICY); trap 'rm -f $(POLICY)' EXIT; \
			fi; \
			install="apt-get install -qq -y --no-install-recommends$$missing"; \
			$$install >/dev/null 2>&1 || { apt-get update -qq && $$install >/dev/null; }; \
		fi; \
	fi
endef

.PHONY: install demo test test-long check bench wheel lock clean help

install: $(VENV)/.installed
	@echo "palmette is installed in $(VENV). Next: make demo, make test, make check (make help lists all)."

demo: $(VENV)/.installed ## learn a tool-using task from scratch, offline, under injected crashes
	@$(VENV)/bin/palmette demo

test: $(VENV)/.installed ## every test, in as many processes as there are cores; PYTEST_WORKERS=0: in one
	$(call debian,$(DEBIAN_PACKAGES))
	@$(PY) -m pytest -q -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder

test-long: $(VENV)/.installed ## 20,000 schedules against Erlang's, a million strangers' frames, 200 kills, humaneval on every machine
	$(call debian,$(DEBIAN_PACKAGES))
	@PALMETTE_SCHEDULES=$${PALMETTE_SCHEDULES:-20000} PALMETTE_KILLS=200 PALMETTE_HUMANEVAL=164 \
		PALMETTE_STRANGERS=1000000 $(PY) -m pytest -q --timeout 3600 tests/differential tests/actors/cluster \
		tests/machines/test_killed_controllers.py tests/console/test_command_machines.py

check: $(VENV)/.installed ## style, types and the direction of imports
	$(call debian,$(DEBIAN_CHECK_PACKAGES))
	@echo "ruff: style"; $(VENV)/bin/ruff check --quiet . && $(VENV)/bin/ruff format --quiet --check .
	@echo "pyright: types (strict)"; $(VENV)/bin/pyright --warnings
	@echo "imports: downwards only"; $(PY) -m pytest -q tests/house/test_import_directions.py

ifneq ($(wildcard tests/bench/run.py),)
bench: $(VENV)/.installed ## what the kernel costs on this machine
	@$(PY) -m tests.bench.run
endif

wheel: $(VENV)/.installed ## dist/palmette-*.whl
	@rm -rf dist && $(PY) -m build --wheel --no-isolation --outdir dist . >/dev/null && ls dist

lock: $(VENV)/.installed ## write down the versions that .venv holds
	@$(PY) -m pip freeze --exclude palmette | sed -E '/^(-|#)/d; s/^(torch==[^+]*)\+.*/\1/' > requirements.lock
	@touch $(VENV)/.dependencies $(VENV)/.installed && echo "$$(wc -l < requirements.lock) versions locked"

clean: ## what tests and builds leave behind (.venv stays)
	@rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# The stamps: a second make is instant, a changed lock installs again.

$(VENV)/.installed: $(VENV)/.dependencies pyproject.toml
	@echo "installing palmette (editable)"
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dependencies: requirements.lock $(VENV)/.created
	@echo "installing torch ($$(grep '^torch==' requirements.lock), alone: what follows cannot choose another build)"
	@$(PIP) install "$$(grep '^torch==' requirements.lock)" --constraint requirements.lock
	@echo "installing $$(wc -l < requirements.lock) locked dependencies"
	@$(PIP) install -r requirements.lock
	@touch $@

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "palmette needs Python 3.11 or newer and found none on PATH." \
		"Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is no Python 3.11 or newer; leave PYTHON out or name another." >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@touch $@
