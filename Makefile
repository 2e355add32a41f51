# `make demo` and `make test` set up all they need (a virtual environment in .venv).
# Debian's own interpreter first: an ordinary user of the real-Nix tests must be able to run it.
PYTHON ?= $(shell for p in /usr/bin/python3 python3; do "$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
PY := .venv/bin/python

.PHONY: demo test lint completions lab soak mac faults power hostile fuzz model bench picture dist installs workflows clean

# What the program itself needs; make demo waits for nothing else.
.venv/.program: pyproject.toml
	@test -n "$(PYTHON)" || { echo "storewarden needs Python 3.11 or newer with venv (on Debian: apt-get install python3-venv); or set PYTHON=" >&2; exit 1; }
	@echo "setting up .venv with $(PYTHON) ..."
	@"$(PYTHON)" -m venv --clear .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/.ready: .venv/.program
	@$(PY) -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(PY) -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

demo: .venv/.program
	@$(PY) -m storewarden demo

test: lint
	$(PY) -m pytest -n 4 --dist worksteal

lint: .venv/.ready
	$(PY) -m ruff check --quiet
	$(PY) -m ruff format --quiet --check
	$(PY) -m mypy --no-error-summary --platform linux
	$(PY) -m mypy --no-error-summary --cache-dir .mypy_cache/darwin --platform darwin --exclude host/linux.py src
	.venv/bin/lint-imports --no-logo

# Writes what bash, zsh and fish complete anew, from the argparse tree.
completions: .venv/.ready
	$(PY) completions/generate.py

# The lab: Debian roots with Nix 2.8, 2.26 and 2.34, booted with systemd (as root on Debian; the
# roots take about two minutes to make, once, and some 330 MB each). Nothing in it is skipped but
# what a Nix cannot do. What it tries again and again takes as long as is said: each soak seconds
# (STOREWARDEN_LAB_SOAK=600 make lab), races (_RACES=50, _ROUNDS=10 of ten), a build user's builds
# (_BUSY=20), interrupted registrations (_REGISTERING=10), builds until their debris is gone
# (_DEATHS=100), and retries at once (_RETRIES=50). _WAYS=all installs in each way on each root.
lab: .venv/.ready
	bash tests/lab/make-roots
	STOREWARDEN_REQUIRE_LAB=1 PYTHONPATH=tests $(PY) -m lab.everything --table docs/lab-results.md

# The lab's soak alone, for as long as you like: builds, interrupts, collections, copies, restarts, and
# storewarden, and what has left each store is explained (make soak SOAK=3600 SEED=7: seconds, seed).
soak: .venv/.ready
	bash tests/lab/make-roots
	@seed=$(SEED); seed=$${seed:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}; echo "seed $$seed"; \
	STOREWARDEN_REQUIRE_LAB=1 STOREWARDEN_LAB_SOAK=$(or $(SOAK),30) STOREWARDEN_SEED=$$seed \
	PYTHONPATH=tests $(PY) -m lab.everything -k test_soak

# Ten minutes for somebody with a Mac: looks, tests, and sets the service up and away again, step by
# step, and writes one file for an issue (docs/macos.md). TOUR=--help shows its options.
mac: .venv/.ready
	@PYTHONPATH=tests $(PY) -m mac.tour $(TOUR)

# Every order in which builds, collector, copies and helper can do their steps (tests/model):
# what no law allows, and whether the races that are known are found. Minutes; a part is in make test.
model: .venv/.ready
	PYTHONPATH=tests $(PY) -m model.search $(MODEL)

# Each system call of a removal fails in turn, in each way, or ends the helper (root, strace): some
# 20,000 of them, half an hour with two processes. make test tries some by a seed that it prints.
faults: .venv/.ready
	PYTHONPATH=tests $(PY) -m helper.faults $(FAULTS)

# The power fails at any moment of a removal: what strace recorded is replayed, with any of what no
# sync had covered lost (root, strace): some 6,000 times, six minutes with two processes.
power: .venv/.ready
	PYTHONPATH=tests $(PY) -m helper.power $(POWER)

# Builders and clients that mean harm, round after round with other attacks, while their debris is
# removed (root): a minute, by a seed that it prints (HOSTILE="--seconds 3600"; HOSTILE=--help).
hostile: .venv/.ready
	PYTHONPATH=tests $(PY) -m helper.hostile $(HOSTILE)

# Bytes that nobody thought of, for all that reads what others wrote, guided by coverage: a minute for
# each of a dozen readers, by a seed that it prints (FUZZ=--help). make test reads the inputs kept.
.venv/.fuzz: .venv/.ready
	@$(PY) -m pip install --quiet --disable-pip-version-check --only-binary :all: --group fuzz
	@touch $@

fuzz: .venv/.fuzz
	@PYTHONPATH=tests $(PY) -m fuzz.run $(FUZZ)

bench: .venv/.ready
	$(PY) benchmarks/start.py
	$(PY) benchmarks/sweep.py
	$(PY) benchmarks/purge.py
	$(PY) benchmarks/explain.py
	$(PY) benchmarks/idle.py 60

# The picture in the README: what a terminal shows of a real wedge (as root on Linux, with Nix).
picture: .venv/.ready
	PYTHONPATH=tests $(PY) -m real.picture docs/picture/scan.svg

# What a release is made with, pinned by hash, each list in an environment of its own. A list anew:
# uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --upgrade
build/venv-%/.ready: release/%.txt
	@"$(PYTHON)" -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --requirement $<
	@touch $@

# Sdist and wheel, built twice; both are equal to the byte.
dist: build/venv-build/.ready
	@rm -rf dist
	@release/build dist
	@release/compare dist

# They can be installed, and what comes with them is written down.
installs: build/venv-check/.ready
	@PYTHON="$(PYTHON)" release/try dist build/storewarden.cdx.json

# What GitHub runs: whether anybody could misuse it.
workflows: build/venv-check/.ready
	@build/venv-check/bin/zizmor --offline --quiet --no-progress --persona pedantic .github action.yml

clean:
	rm -rf build dist .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
