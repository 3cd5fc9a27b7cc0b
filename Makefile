# Every target does its own set-up on a machine that has Python >= 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SYNCED := $(VENV)/.synced

.DEFAULT_GOAL := help
.PHONY: help setup models run test bench e2e kind-up kind-down kind-node-image images lint fmt generate verify clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(SYNCED) ## Install everything into .venv, at the versions of uv.lock

$(SYNCED): pyproject.toml uv.lock hack/setup
	@PYTHON=$(PYTHON) hack/setup $(VENV)
	@touch $@

models: $(SYNCED) ## Build the sample models into models/build
	@$(BIN)/python -m models.build

run: models ## Serve the sample models on this machine, at port 8000
	@$(BIN)/modelendpoint run --models models/build manifests/samples

# Tests of the API server and of the chart wait more than they compute, so three run at a time. Those of folders and units compute.
# Those of services share one and measure times, so they run one by one.
test: models ## Run all tests that need no cluster, or those of TESTS
	@if [ -n "$(TESTS)" ]; then exec $(BIN)/python -m pytest $(TESTS); fi; \
	$(BIN)/python -m pytest --numprocesses=3 --dist=worksteal tests/api tests/chart; waiting=$$?; \
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal tests/folders tests/unit tests/test_layout.py; computing=$$?; \
	$(BIN)/python -m pytest tests/serve && exit $$((waiting + computing))

bench: models ## Measure ours beside other servers, in an hour; ARGS=--quick in 5 minutes
	@$(BIN)/python -m bench $(ARGS)

e2e: models ## Run the tests on a real cluster; it is made for them unless kind-up made it
	@$(BIN)/python -m pytest tests/e2e

kind-up: models ## Make the cluster of kind-config.yaml, with KubeRay and the project's images
	@$(BIN)/python -m hack kind-up

kind-down: $(SYNCED) ## Remove the cluster that kind-up made, to the last process
	@$(BIN)/python -m hack kind-down

images: models ## Build the images, with everything in them; MODELS="..." puts models into them
	@$(BIN)/python -m hack images --models "$(MODELS)"

kind-node-image: $(SYNCED) ## Build the image of a node, where kindest/node cannot be pulled
	@$(BIN)/python -m hack kind-node-image

lint: $(SYNCED) verify ## Check style, types, imports and generated files; change nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fmt: $(SYNCED) ## Format the code and sort its imports
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

generate: $(SYNCED) ## Write the files that are made from others
	@$(BIN)/python -m hack generate

verify: $(SYNCED) ## Check that the generated CRD is fresh
	@$(BIN)/python -m hack verify

clean: ## Remove what was installed and built here
	@rm -rf $(VENV) models/build
