# make demo    renders, prepares, trains and evaluates the demo in demo/ (about 9 minutes, 2 cores)
# make test    lint and tests
# make lint    ruff alone
# make bench   the slow proofs and the speed tables
# make lock    the exact versions anew, after requirements*.txt changed (needs uv)
#
# The first of them makes .venv. PYTHON=python3.12 picks an interpreter (3.11 to 3.13).
# TORCH=no leaves PyTorch out: the tests that compare with it are then skipped, and say so.
# DEMO_FLAGS=--config.seed=1 (or any flag of train) changes the demo's training.

PYTHON ?= python3
TORCH ?= yes
PY := .venv/bin/python

# glibc gives every large buffer back to the kernel and takes it anew, step after step: a fifth
# of a small model's step on a CPU went into clearing those pages.
KEEP_MEMORY := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=268435456

# Large pages: a step of a large model touches gigabytes, and the kernel clears a page at a time.
HUGE_PAGES := GLIBC_TUNABLES=glibc.malloc.hugetlb=1

.PHONY: demo test lint bench lock clean

demo: .venv/runtime
	$(PY) -m glscl_jax.input_pipeline.rendered --out demo/videos
	$(PY) -m glscl_jax.input_pipeline.prepare --dataset folder --source demo/videos \
		--data_dir demo/data --frame_rate 2 --image_size 32
	$(KEEP_MEMORY) $(PY) -m glscl_jax.train --config configs/demo.py \
		--workdir demo/run $(DEMO_FLAGS)
	$(PY) -m glscl_jax.evaluate --checkpoint demo/run --config configs/demo.py

test: lint
	$(PY) -m pytest -n 2

lint: .venv/dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

bench: .venv/bench
	$(PY) -m pytest -m slow
	$(PY) -m benchmarks.similarity
	$(HUGE_PAGES) $(PY) -m benchmarks.train_step
	$(HUGE_PAGES) $(PY) -m benchmarks.train_step --layouts --rounds=2
	$(HUGE_PAGES) $(PY) -m benchmarks.saving --clips=32 --usual=1
	$(PY) -m benchmarks.on_gpu
	$(PY) -m benchmarks.convert
	$(PY) -m benchmarks.head_flops
	$(PY) -m benchmarks.input
	$(PY) -m benchmarks.augmentation
	$(PY) -m benchmarks.scaling

lock:
	uv pip compile -q --universal --python-version 3.11 --no-header \
		requirements.txt -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --no-header \
		-c requirements.lock requirements-dev.txt -o requirements-dev.lock

clean:
	rm -rf demo

# uv where it is there (seconds), pip otherwise (a minute or two).
INSTALL := $(if $(shell command -v uv),uv pip install -q --python $(PY),$(PY) -m pip install -q)

.venv/runtime: requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 13) and \
		"error: Python 3.11 to 3.13 is needed, this is %d.%d: make PYTHON=python3.12 ..." % v)'
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@echo "installing requirements.lock into .venv"
	@$(INSTALL) -r requirements.lock
	@touch $@

# PyTorch by pip, whose settings may name an index with its CPU build.
.venv/dev: .venv/runtime requirements-dev.lock requirements-torch.txt
	@echo "installing requirements-dev.lock into .venv"
	@$(INSTALL) -r requirements-dev.lock
	@test $(TORCH) = no || $(PY) -m pip install -q -r requirements-torch.txt
	@touch $@

# What the benchmarks compare with; without its dependencies, which are all here.
.venv/bench: .venv/dev requirements-bench.txt
	@echo "installing requirements-bench.txt into .venv"
	@$(INSTALL) --no-deps -r requirements-bench.txt
	@touch $@
