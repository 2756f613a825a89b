# make demo       the whole product at work on real detector data, in about two minutes
# make test       everything that is tested; what CI runs
# make test-fast  the tests that need no servers and no waiting
# make test-cluster  productions through real batch systems; as root on a Debian machine
# make test-campaign  1000 jobs through each system with a scheduler that fails all the time
# make campaign   3000 runs while managers are killed and stopped, on GlusterFS and NFS, and every
#                 step of a run's life failing; as root, for hours
# make test-site BATCH=lsf  the same through your site's own batch system: docs/site-tests.md
# make lint       types and style
#
# Each sets up what it needs in .venv; PYTHON=… chooses the interpreter (3.11 or newer).

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test test-fast test-slow test-cluster test-campaign campaign test-site lint clean

demo: $(VENV)/with-example
	examples/demo.sh $(BIN)/python

test: lint test-fast test-slow test-cluster

test-fast: $(VENV)/with-test
	$(BIN)/python -m pytest -q -n 2 -m "not slow and not cluster" tests

test-slow: $(VENV)/with-test
	$(BIN)/python -m pytest -q -n 2 -m "slow and not cluster" --durations=10 tests

test-cluster: $(VENV)/with-test
	nice $(BIN)/python -m pytest -q -m cluster --durations=10 tests/cluster

test-campaign: $(VENV)/with-test
	CAMPAIGN_RUNS=1000 nice $(BIN)/python -m pytest -q -rP tests/test_flapping_schedulers.py

CAMPAIGN_RUNS  ?= 3000
CAMPAIGN_KILLS ?= 1000
CAMPAIGN_ON    ?= gluster scheduler nfs

campaign: $(VENV)/with-test
	CAMPAIGN_RUNS=$(CAMPAIGN_RUNS) CAMPAIGN_KILLS=$(CAMPAIGN_KILLS) CAMPAIGN_ON="$(CAMPAIGN_ON)" \
		nice $(BIN)/python -m pytest -q -rP tests/campaign
	STEPS=all nice $(BIN)/python -m pytest -q -n 2 tests/test_every_step.py

# A site's queues take their time.
test-site: $(VENV)/with-test
	@test -n "$(BATCH)" || { echo 'Say which batch system: make test-site BATCH=lsf' >&2; exit 2; }
	BATCH="$(BATCH)" nice $(BIN)/python -m pytest -q -m site --timeout=7200 --durations=10 tests/cluster

lint: $(VENV)/with-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The stamp's name says which extra of setup.cfg is installed.
$(VENV)/with-%: setup.cfg tools/make-venv
	tools/make-venv "$(PYTHON)" "$(VENV)" "$*"
	touch $@

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
