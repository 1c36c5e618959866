# make test   set up, then check style and types and run the tests
# make gpu-report   on a machine with a GPU: measure everything that needs one, ten minutes (docs/benchmarks.md)
# make demo   set up, then train, evaluate and draw a small FCPose on synthetic people (output/demo)
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
GPU_PYTHON ?= $(BIN)/python
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
READY := $(VENV)/.ready
# of pytest; each has one thread
PROCESSES ?= 2
CONSTRAINTS ?= constraints.txt
# 0.6 or main
DETECTRON2 ?= 0.6
ifeq ($(DETECTRON2),main)
INSTALL_DETECTRON2 := $(PIP) --no-build-isolation git+https://github.com/facebookresearch/detectron2.git
else
INSTALL_DETECTRON2 := $(BIN)/python dynpose/tools/install_detectron2.py
endif

# threads that wait must sleep: the data workers need the cores
export OMP_WAIT_POLICY := PASSIVE
# Modules are compiled once, and not by each of the processes that tests start, also where the environment forbids it.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup test lint demo gpu-report clean

setup: $(READY)

# Done again only where what is installed could differ: the pins, the requirements or the detectron2 script.
$(READY): $(CONSTRAINTS) pyproject.toml setup.py dynpose/layers/kp_net/_native.cpp dynpose/tools/install_detectron2.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(PIP) --constraint $(CONSTRAINTS) pip setuptools wheel
	$(PIP) --constraint $(CONSTRAINTS) torch torchvision
	$(INSTALL_DETECTRON2) --constraint $(CONSTRAINTS)
	$(PIP) --constraint $(CONSTRAINTS) --no-build-isolation --editable ".[dev]"
	touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

# Two processes with a thread each: the operations on maps this small gain little from a second thread.
demo: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python train_net.py --num-gpus 2 --config-file configs/quick/fcpose_synthetic.yaml OUTPUT_DIR output/demo
	$(BIN)/dynpose predict --config-file output/demo/config.yaml --weights output/demo/model_final.pth \
		--input output/demo/synthetic/val --output output/demo/predictions --limit 8 --score-threshold 0.5

# No set-up: GPU_PYTHON=python3 takes the PyTorch that a machine has (docs/benchmarks.md).
gpu-report:
	$(GPU_PYTHON) -m dynpose benchmark gpu-report --output gpu_report

clean:
	rm -rf $(VENV) output build *.egg-info
