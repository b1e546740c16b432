# make run    set up .venv, then `seqpipe run all`; flags go in ARGS: make run ARGS="--model medium"
# make test   set up .venv with the developers' tools, then the unit tests
#
# Needs Python 3.11 to 3.14, git and make. PYTHON and TORCH_INDEX_URL are explained in scripts/setup.sh.
# make itself ends with 2 whatever went wrong; for seqpipe's own exit codes call .venv/bin/seqpipe.

ARGS =
BIN = .venv/bin
export PYTHON
export TORCH_INDEX_URL

.PHONY: help run test test-integration test-machines test-avx2 test-no-compiler test-faults lint format bench constraints map results setup setup-dev clean
.DEFAULT_GOAL = help

help:
	@echo "make run            set up, then seqpipe run all         (ARGS=\"...\" adds flags)"
	@echo "make test           set up, then the unit tests          (ARGS=\"...\" goes to pytest)"
	@echo "make test-integration  the tests that start commands, servers and a Ray"
	@echo "make test-machines  those of models and training, as machines with AVX2 only and without a C compiler compute them"
	@echo "make test-faults    the slow tests: kills, nodes, full disks"
	@echo "make lint           ruff, mypy, the layers"
	@echo "make format         let ruff mend what it can"
	@echo "make bench          measure what the README claims       (BENCH=name: one of them; search: of tune; long: whole trainings)"
	@echo "make constraints    resolve the pinned versions anew"
	@echo "make results        write the tables and pictures of docs/results.md anew, from the workspaces in ARGS (default: this one)"
	@echo "make map            write the map of the modules in docs/design.md anew"
	@echo "make clean          remove .venv and caches; data, runs and models stay"

# Two processes, whose tests of one file stay together: more take 0.6 GB each.
WORKERS = -n 2 --dist loadfile

run: setup
	$(BIN)/seqpipe run all $(ARGS)

test: setup-dev
	$(BIN)/pytest --durations=10 $(WORKERS) $(ARGS)

test-integration: setup-dev
	$(BIN)/pytest --durations=10 $(WORKERS) tests/integration $(ARGS)

# What depends on the processor and the compiler, as other people's machines have them.
MACHINE_TESTS = tests/unit/sequencer_models tests/unit/pipeline/training tests/unit/pipeline/stages/test_train.py \
    tests/integration/test_resume.py
test-machines: test-avx2 test-no-compiler

test-avx2: setup-dev
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(BIN)/pytest $(WORKERS) $(MACHINE_TESTS) $(ARGS)

test-no-compiler: setup-dev
	SEQPIPE_COMPILERS= $(BIN)/pytest $(WORKERS) $(MACHINE_TESTS) $(ARGS)

test-faults: setup-dev
	$(BIN)/pytest tests/faults $(ARGS)

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Those that take seconds or minutes, those of the search, those that train whole models; table.py and measuring/ are no benchmarks.
BENCH_short = cli_start gate checkpoint_cost inference predict serve batches step_profile optimizer_share recipe_step attention_cost depth_gradients waiting cold_start mixer_and_block training_step
BENCH_search = forecast search_fit search_caps search_time search_nodes search_growth
BENCH_long = default_run time_to_accuracy precision
BENCH = short
bench: setup-dev
	@for name in $(or $(BENCH_$(BENCH)),$(BENCH)); do \
	    [ -f "benchmarks/$$name.py" ] || { echo "no such benchmark: $$name" >&2; exit 2; }; \
	    echo "benchmarks/$$name.py" >&2; \
	    $(BIN)/python "benchmarks/$$name.py" $(ARGS) || exit 1; \
	done

constraints: setup-dev
	$(BIN)/python scripts/constraints.py

map: setup-dev
	$(BIN)/python scripts/house_map.py --write

results: setup-dev
	$(BIN)/python scripts/results.py $(ARGS)
	$(BIN)/python scripts/ablations.py show

setup:
	@sh scripts/setup.sh

setup-dev:
	@sh scripts/setup.sh dev,compiler  # the tests try that compiler where there is another, too

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
