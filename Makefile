# `make demo` and `make test` need nothing before them: either builds .venv (about 5 GB, once) and reuses it.
#   make PYTHON=python3.12 demo     build .venv with this interpreter (Python 3.10 to 3.13; default python3)
#   make setup DETECTRON2=git       detectron2 from upstream's source: needs git, a compiler and the network
# Linux on x86-64 is what is tried; the lock also covers Linux on ARM and macOS, untried.

VENV := .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv pip
LOCKS := requirements.lock requirements-detectron2.lock

# What .venv was built from. When this differs from what is asked for, it is built anew; the contents of the locks count
# rather than their dates, and the folder, because a .venv that is moved or copied still runs the code of the old place.
STAMP := $(VENV)/.built-from
BUILT := $(shell test -x $(PY) && cat $(STAMP) 2>/dev/null)
PYTHON ?= $(or $(word 1,$(BUILT)),python3)
DETECTRON2 ?= $(or $(word 2,$(BUILT)),wheel)
WANTED := $(PYTHON) $(DETECTRON2) $(shell cat $(LOCKS) | cksum) $(CURDIR)
ifneq ($(BUILT),$(WANTED))
.PHONY: $(STAMP)
endif
ifeq ($(filter wheel git,$(DETECTRON2)),)
$(error DETECTRON2 is wheel or git, not '$(DETECTRON2)')
endif

# A PYTHONPATH from outside (ROS sets one) would put other packages before the pinned ones.
unexport PYTHONPATH
# Without the bytecode cached, every start spends six more seconds compiling torch.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

# The versions `make lock` starts from. torchvision belongs to one torch: change them together.
TORCH := torch==2.13.0 torchvision==0.28.0
DETECTRON2_GIT := git+https://github.com/facebookresearch/detectron2@02b5c4e

DEMO := output/demo
DEMO_CONFIG := configs/quickstart.yaml
DEMO_SCENES := --num-train 1200 --num-test 40 --size 480x288 --balanced --seed 0
DEMO_PICTURES := 12
# Without a GPU, two processes; with one or more, one of them is plenty.
DEMO_PROCESSES := $(if $(shell command -v nvidia-smi),1,2)

# Processes that run the tests; each imports detectron2 (about 10 s and 1 GB). With more cores: make test TEST_WORKERS=8
TEST_WORKERS ?= 2
# Further arguments of pytest: make test PYTEST_ARGS="-k letterbox"
PYTEST_ARGS ?=
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup detectron2 demo test test-long gpu lint format lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

setup: $(STAMP)  ## build .venv where there is none or a lock file changed (every target below does so by itself)

$(STAMP):
	@command -v $(PYTHON) >/dev/null || { echo "There is no '$(PYTHON)' here: install Python 3.10 to 3.13 or name" \
		"yours, as in: make PYTHON=python3.12 $(or $(MAKECMDGOALS),setup)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 13) or sys.exit("$(PYTHON) is Python %d.%d, \
	but parking needs 3.10 to 3.13: name such an interpreter, as in: make PYTHON=python3.12 $(or $(MAKECMDGOALS),setup)" % v)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module with pip: install it" \
		"(Debian and Ubuntu: apt-get install python3-venv) and run make again" >&2; exit 1; }
	@echo "Building $(VENV) with $(PYTHON): a few minutes and about 5 GB, once"
	@rm -f $(STAMP)
	@$(PYTHON) -m venv --clear $(VENV)
	@awk '/^[^ ]/ {keep = /^(setuptools|uv)==/} keep' requirements.lock \
		| $(PY) -m pip install --quiet --require-hashes --no-deps -r /dev/stdin
	@$(UV) install --python $(PY) --require-hashes --no-build-isolation -r requirements.lock
ifeq ($(DETECTRON2),git)
	@$(UV) install --python $(PY) --no-deps --no-build-isolation "$(DETECTRON2_GIT)"
else
	@$(MAKE) --no-print-directory detectron2 PYTHON=$(PY) DETECTRON2=wheel
endif
	@$(UV) install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	@echo '$(WANTED)' > $@

detectron2:  ## put detectron2, and nothing else, into an environment of your own: make detectron2 PYTHON=python
	$(if $(filter command,$(origin PYTHON)),,$(error name the Python to install into: make detectron2 PYTHON=python))
	@set -e; \
	if $(PYTHON) -c 'import importlib.util as u, sys; sys.exit(u.find_spec("detectron2") is None)'; then \
		echo "$(PYTHON) has a detectron2 already; it stays as it is"; exit; \
	fi; \
	site=$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; \
	$(PYTHON) -m pip install --quiet --require-hashes --no-deps --only-binary=:all: --python-version 3.10 \
		--target "$$new" -r requirements-detectron2.lock; \
	rm -rf "$$new"/tools "$$new"/detectron2/_C*.so; \
	cp -R "$$new"/. "$$site"

demo: $(STAMP)  ## draw scenes, train on them, score, and write a submission and pictures (minutes)
	@rm -rf $(DEMO)/data $(DEMO)/train
	$(PY) tools/make_synthetic.py --output $(DEMO)/data $(DEMO_SCENES)
	$(PY) tools/train_net.py --config-file $(DEMO_CONFIG) --num-gpus $(DEMO_PROCESSES) \
		DATASETS.ROOT $(DEMO)/data OUTPUT_DIR $(DEMO)/train
	$(PY) tools/infer.py --input $(DEMO)/data/test --weights $(DEMO)/train/model_best.pth --visualize $(DEMO_PICTURES)

test: $(STAMP)  ## the tests, without those that take long or need a GPU
	$(PYTEST) -m "not gpu and not long"

test-long: $(STAMP)  ## the tests that take long: kills, several processes, hostile files by the thousand
	$(PYTEST) -m "long and not gpu"

gpu: $(STAMP)  ## on a machine with a GPU: the tests that need one, and the speed of training and inference there
	PYTHON=$(PY) .ci/gpu

lint: $(STAMP)  ## ruff: mistakes and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(STAMP)  ## mend what ruff can mend
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lock: $(STAMP)  ## take the newest versions that setup.py admits into requirements.lock
	printf '%s\n' $(TORCH) | $(UV) compile setup.py - --quiet --upgrade --universal --python-version 3.10 --all-extras \
		--generate-hashes --no-emit-index-url --custom-compile-command 'make lock' --output-file requirements.lock

clean:  ## remove .venv, caches and the demo's output
	rm -rf $(VENV) $(DEMO)/data $(DEMO)/train build dist parking.egg-info .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
