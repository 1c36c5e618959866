# make test   set up, then check style and run the tests
# make demo   set up, then train, evaluate and draw a small FCPose on synthetic people (output/demo)
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
READY := $(VENV)/.ready
# of pytest; each has one thread
PROCESSES ?= 2

# threads that wait must sleep: the data workers need the cores
export OMP_WAIT_POLICY := PASSIVE

.PHONY: setup test lint demo clean

setup: $(READY)

# Done again only where what is installed could differ: the pins, the requirements or the detectron2 script.
$(READY): constraints.txt pyproject.toml setup.py dynpose/tools/install_detectron2.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(PIP) --constraint constraints.txt pip setuptools wheel
	$(PIP) --constraint constraints.txt torch torchvision
	$(BIN)/python dynpose/tools/install_detectron2.py --constraint constraints.txt
	$(PIP) --constraint constraints.txt --no-build-isolation --editable ".[dev]"
	touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile

demo: $(READY)
	$(BIN)/python train_net.py --config-file configs/quick/fcpose_synthetic.yaml OUTPUT_DIR output/demo
	$(BIN)/dynpose predict --config-file output/demo/config.yaml --weights output/demo/model_final.pth \
		--input output/demo/synthetic/val --output output/demo/predictions --limit 8 --score-threshold 0.5

clean:
	rm -rf $(VENV) output build *.egg-info
