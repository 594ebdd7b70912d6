# make install   the environment alone: .venv with the package in it (. .venv/bin/activate)
# make demo      renders, prepares, trains, evaluates and searches the demo in demo/ (5 to 14 minutes)
# make test      lint and tests (7 to 17 minutes on 2 cores of an AMD EPYC)
# make slow      what make test leaves out: whole proofs, and further cases of what it tests
# make lint      ruff, and the types of glscl_jax/models, retrieval and training
# make aot       the compiler for TPUs into .venv (170 MB): train --compile_for, and its tests
# make buckets   clients and servers of buckets, and what search needs, into .venv and .venv-moto,
#                and the tests with them
# make search    what search needs into .venv (300 MB), and its tests; .ci/run has it, too
# make serve     the demo's test clips as a page to search, after make demo
# make bench     the slow tests and the speed tables
# make lock      the exact versions anew, after requirements*.txt changed (needs uv)
# make clean     forgets the demo
#
# Times are of 2 cores, from a fresh clone: the first command makes .venv.
# PYTHON=python3.12 picks an interpreter (3.11 to 3.13).
# TORCH=cpu, pip or no: which PyTorch make test takes. cpu, which is what it does if nothing is
# said, is the CPU build from PyTorch's own index (3.6 GiB in all); pip is the one that pip gives,
# on Linux with CUDA (7.3 GiB); with no (2.8 GiB) the tests that compare with it are skipped.
# DEMO_FLAGS=--config.seed=1 (or any flag of train) changes the demo's training.

PYTHON ?= python3
TORCH ?= cpu
PY := .venv/bin/python

# glibc gives every large buffer back to the kernel and takes it anew, step after step: a fifth
# of a small model's step on a CPU went into clearing those pages.
KEEP_MEMORY := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=268435456

# Large pages: a step of a large model touches gigabytes, and the kernel clears a page at a time.
HUGE_PAGES := GLIBC_TUNABLES=glibc.malloc.hugetlb=1

# The demo's test clips, which are 500 to 999 and of a few seconds: whole videos are the windows.
# An index is of one checkpoint: a demo that was trained anew is indexed anew.
INDEX_CLIPS = rm -rf demo/index && $(PY) -m glscl_jax.search index --index demo/index \
	--videos demo/videos/videos --only='00[5-9]*' --checkpoint demo/run --window=0 --batch_size=50

ifeq ($(filter cpu pip no,$(TORCH)),)
$(error TORCH=$(TORCH): say cpu, pip or no)
endif

.PHONY: help install demo test slow lint aot buckets search serve bench lock clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

install: .venv/runtime
	@echo "ready: . .venv/bin/activate"

demo: .venv/search-alone
	$(PY) -m glscl_jax.input_pipeline.rendered --out demo/videos
	$(PY) -m glscl_jax.input_pipeline.prepare --dataset folder --source demo/videos \
		--data_dir demo/data --frame_rate 2 --image_size 32
	$(KEEP_MEMORY) $(PY) -m glscl_jax.train --config configs/demo.py \
		--workdir demo/run $(DEMO_FLAGS)
	$(PY) -m glscl_jax.evaluate --checkpoint demo/run --config configs/demo.py
	$(INDEX_CLIPS)
	$(PY) -m glscl_jax.search query --index demo/index --top=3 \
		"a red square goes right, and later a green cross moves up"
	@echo "make serve shows a page to search them by a sentence"

test: lint .venv/torch-$(TORCH)
	$(PY) -m pytest -n 2

slow: .venv/dev
	$(PY) -m pytest -m slow

lint: .venv/dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m basedpyright --pythonpath $(PY)

aot: .venv/aot

buckets: .venv/buckets .venv/search
	$(PY) -m pytest -m "slow or not slow" tests/runtime/test_bucket_servers.py \
		tests/search/test_bucket_index.py

search: .venv/search
	$(PY) -m pytest tests/search

serve: .venv/search-alone
	@test -e demo/index/index.json || { $(INDEX_CLIPS); }
	$(PY) -m glscl_jax.search serve --index demo/index

bench: .venv/bench slow
	$(PY) -m benchmarks.similarity
	$(HUGE_PAGES) $(PY) -m benchmarks.train_step
	$(HUGE_PAGES) $(PY) -m benchmarks.train_step --layouts --rounds=2
	$(HUGE_PAGES) $(PY) -m benchmarks.saving --clips=32 --usual=1
	$(PY) -m benchmarks.on_gpu
	$(PY) -m benchmarks.convert
	$(PY) -m benchmarks.heads
	$(PY) -m benchmarks.inputs
	$(PY) -m benchmarks.augmentation
	$(PY) -m benchmarks.scaling
	$(PY) -m benchmarks.compiled

lock:
	uv pip compile -q --universal --python-version 3.11 --no-header \
		requirements.txt -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --no-header \
		-c requirements.lock requirements-dev.txt -o requirements-dev.lock

clean:
	rm -rf demo

# uv installs in a third of pip's time, and needs no more than to be installed itself. It knows
# nothing of pip's settings, and pip is there for whom it fails.
PIP := $(PY) -m pip install -q --no-compile
install = .venv/bin/uv pip install -q --native-tls --python $(PY) $(1) 2>/dev/null || $(PIP) $(1)

# The package itself is installed as a link to this folder.
.venv/runtime: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 13) and \
		"error: Python 3.11 to 3.13 is needed, this is %d.%d: make PYTHON=python3.12 ..." % v)'
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@$(PIP) uv 2>/dev/null || true
	@echo "installing requirements.lock and this package into .venv"
	@$(call install,-r requirements.lock)
	@$(call install,--no-deps --no-build-isolation --editable .)
	@touch $@

.venv/dev: .venv/runtime requirements-dev.lock
	@echo "installing requirements-dev.lock into .venv"
	@$(call install,-r requirements-dev.lock)
	@touch $@

# PyTorch by pip, whose settings may name another index. Of one release pip prefers the CPU build,
# whose version is the longer one; without a way to PyTorch's index it takes what there is.
CPU_BUILDS := https://download.pytorch.org/whl/cpu

TORCH_INDEX :=
.venv/torch-cpu: TORCH_INDEX := --extra-index-url $(CPU_BUILDS)
.venv/torch-cpu .venv/torch-pip: .venv/dev requirements-torch.txt
	@echo "installing requirements-torch.txt into .venv"
	@$(PIP) --retries 2 $(TORCH_INDEX) -r requirements-torch.txt
	@$(PY) -c "from importlib import metadata; print('PyTorch', metadata.version('torch'))"
	@touch $@

.venv/torch-no: .venv/dev
	@touch $@

# Of requirements-aot.txt what is small; CUDA's is gigabytes.
.venv/aot: .venv/dev requirements-aot.txt
	@echo "installing the compiler for TPUs into .venv"
	@grep '^libtpu' requirements-aot.txt >.venv/libtpu.txt
	@$(call install,-r .venv/libtpu.txt)
	@touch $@

# A client's release is that of fsspec. s3fs and moto's server ask for different ones of botocore.
.venv/buckets: .venv/dev requirements-buckets.txt
	@echo "installing clients and servers of buckets into .venv and .venv-moto"
	@{ grep '^fsspec==' requirements.lock; cat requirements-buckets.txt; } >.venv/buckets.txt
	@$(call install,-r .venv/buckets.txt)
	@test -x .venv-moto/bin/python || $(PYTHON) -m venv .venv-moto
	@.venv-moto/bin/python -m pip install -q 'moto[server]>=5.2'
	@touch $@

.venv/search-alone: .venv/runtime requirements-search.txt
	@echo "installing requirements-search.txt into .venv"
	@$(call install,-r requirements-search.txt)
	@touch $@

.venv/search: .venv/dev .venv/search-alone requirements-qdrant.txt
	@echo "installing requirements-qdrant.txt into .venv"
	@$(call install,-r requirements-qdrant.txt)
	@touch $@

# What the benchmarks compare with; without its dependencies, which are all here.
.venv/bench: .venv/torch-$(TORCH) requirements-bench.txt
	@echo "installing requirements-bench.txt into .venv"
	@$(call install,--no-deps -r requirements-bench.txt)
	@touch $@
