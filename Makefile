# Everything runs in .venv, which these targets make and keep equal to the lock files; nothing else is needed than
# Python 3.12 and make. `make help` lists the targets.

SHELL := /bin/sh
# Packages come without bytecode; where none may be written, each process would compile all of its imports.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
BIN := $(VENV)/bin
UV_LOCK := launch/requirements/uv_requirements.lock
# A Python 3.12 to use instead of the one that is found: make demo PYTHON=/path/to/python3.12
PYTHON ?=
# More arguments for pytest: make test PYTEST_ARGS="-x -k budget"
PYTEST_ARGS ?=
# More arguments for the benchmark: make bench BENCH_ARGS="--text-mb 80"
BENCH_ARGS ?=
# More arguments for the benchmark of counting: make bench COUNT_BENCH_ARGS="--text-mb 80"
COUNT_BENCH_ARGS ?=
# And for those of tokenizers and texts: make bench TEXTS_BENCH_ARGS="--tokenizers nanochat" ENGINE_BENCH_ARGS="--text-mb 10"
TEXTS_BENCH_ARGS ?=
ENGINE_BENCH_ARGS ?=
# And for that of training: make bench TRAINING_BENCH_ARGS="--style gpt-neox"
TRAINING_BENCH_ARGS ?=
# And for that of streaming: make bench STREAMING_BENCH_ARGS="--text-mb 400"
STREAMING_BENCH_ARGS ?=
# And for that of filters: make bench FILTERED_BENCH_ARGS="--text-mb 40"
FILTERED_BENCH_ARGS ?=
# And for that of reads at random: make bench READS_BENCH_ARGS="--group-sizes 1 16"
READS_BENCH_ARGS ?=
# And for that of worker processes: make bench SCALING_BENCH_ARGS="--text-mb 400"
SCALING_BENCH_ARGS ?=

# For the check on Google Cloud; more arguments by GCP_CHECK_ARGS="--option=--subnetwork=regions/REGION/subnetworks/NAME"
PROJECT ?=
BUCKET ?=
REGION ?=
ZONE ?=
TPU ?=
YES ?=
GCP_CHECK_ARGS ?=

# The core by default: make mutants MUTANTS_ARGS="transforms/budget/text_cut.py --again"
MUTANTS_ARGS ?=

# All by default: make pictures PICTURES="demo report"
PICTURES ?=

# make lock keeps the versions that still fit; make lock UPGRADE=1 takes the newest
UPGRADE ?=

UV := $(BIN)/python -m uv
# Packages that come as source distributions alone are built by the setuptools that the lock file names, by its hash.
SYNC := $(UV) pip sync --quiet --python $(BIN)/python --require-hashes --build-constraints requirements.lock
INSTALL_PROJECT := $(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
COMPILE := UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --quiet --python $(BIN)/python --universal \
	--python-version 3.12 --generate-hashes --no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)

PYTEST := $(BIN)/python -m pytest -q -n auto --dist loadfile

# The environments beside ours; a TPU VM is one platform, the others may be any.
COMPILE_OTHER := $(UV) pip compile --quiet --python-version 3.12 --generate-hashes --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)

# Stamps are written last, so an interrupted step is done again. The first holds the folder that the environment was
# made in: an environment does not survive a move. BUSY is there while packages are installed: a killed installation
# may leave half a package that later ones take for whole, so the environment is then made again.
MADE := $(VENV)/.made
RUN := $(VENV)/.run
DEV := $(VENV)/.dev
BUSY := $(VENV)/.busy
ifneq ($(shell cat $(MADE) 2>/dev/null)$(wildcard $(BUSY)),$(CURDIR))
.PHONY: $(MADE)
endif

.DEFAULT_GOAL := help
.PHONY: help demo tokenizer-demo train-demo cluster-demo prism gcp-check test test-slow lint format docs tutorial pictures bench mutants lock clean distclean

help: ## list the targets
	@echo "make demo and make test set up .venv by themselves; they need Python 3.12."
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

demo: $(RUN) ## build a five-dataset mix from the sample corpora, verify it, print the table
	$(BIN)/broetchen demo

tokenizer-demo: $(RUN) ## vocabulary corpus, tokenizer, evaluation and statistics from the samples, in tokenizer-demo/
	$(BIN)/broetchen vocab mix_configs/demo.yaml --output tokenizer-demo/corpus --set total_tokens=1_200_000
	$(BIN)/broetchen train-tokenizer tokenizer-demo/corpus --vocab-size 16384 --output tokenizer-demo/tokenizer --overwrite
	$(BIN)/broetchen eval-tokenizer new=tokenizer-demo/tokenizer sample=samples/tokenizer.json \
		--data mix_configs/demo.yaml --plot tokenizer-demo/evaluation.png
	$(BIN)/broetchen count tokenizer-demo/corpus
	$(BIN)/broetchen build mix_configs/demo.yaml --set tokenizer.path="$(CURDIR)/tokenizer-demo/tokenizer" \
		--output tokenizer-demo/mix --overwrite
	$(BIN)/broetchen verify tokenizer-demo/mix

train-demo: $(RUN) ## train a tiny Llama by MaxText on the demo mix, resume, export, let transformers write; in train-demo/
	rm -rf train-demo/runs
	$(BIN)/broetchen build mix_configs/demo.yaml --set records.format=megatron --output train-demo/mix --overwrite
	$(BIN)/broetchen mix train-demo/mix --steps 61 --batch 4 --length 256 --blend train-demo/order
	$(BIN)/broetchen train launch/configs/train-demo.yaml --set parameters.steps=30
	$(BIN)/broetchen train launch/configs/train-demo.yaml
	$(BIN)/broetchen show train-demo/mix --step 30 --run launch/configs/train-demo.yaml
	$(BIN)/broetchen train launch/configs/train-demo.yaml export
	$(BIN)/python -m launch.export.check launch/configs/train-demo.yaml

gcp-check: $(RUN) ## the demo mix on your Dataflow: PROJECT=… BUCKET=… [TPU=v6e-1]; says the price and asks first (YES=1 answers)
	$(BIN)/python -m tests.campaign.gcp --project "$(PROJECT)" --bucket "$(BUCKET)" $(if $(REGION),--region "$(REGION)") \
		$(if $(ZONE),--zone "$(ZONE)") $(if $(TPU),--tpu "$(TPU)") $(if $(YES),--yes) $(GCP_CHECK_ARGS)

cluster-demo: $(DEV) ## build the demo mix on three hosts, which are namespaces of this one; needs Linux and root
	$(BIN)/python -m tests.support.hosts.demo

prism: $(DEV) ## compile Prism, Beam's runner in Go, for the tests that need it; needs Go, and some five minutes
	$(BIN)/python -m tests.support.services.prism

test: $(DEV) ## run the fast tests, in less than five minutes
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-slow: $(DEV) ## run the slow tests: those that train, kill builds, try many faults, or properties on more examples
	$(PYTEST) -m "slow or hypothesis" --hypothesis-profile=thorough $(PYTEST_ARGS)

# Turns of phrase that plain English does without.
lint: $(DEV) ## check style, types and turns of phrase: ruff, mypy, git grep
	@! git grep -nP '\banew\b|, too([.,;:)"]|$$)' -- '*.py' '*.md' '*.yaml' '*.ipynb' || { echo 'write "again" or "also"'; exit 1; }
	@! git grep -nP '(^|[.] )(What|Who) [^?]*$$' -- '*.md' || { echo 'begin the sentence with a noun'; exit 1; }
	@! git grep -nP '(^\s*|"""|# |[.] )(What|Whatever|Who|Whoever|Whose) [^?]*$$' -- '*.py' '*.sh' '*.toml' '*.yaml' Makefile Dockerfile || \
		{ echo 'begin the sentence with a noun or a verb'; exit 1; }
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV) ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(RUN) ## write the tables of config keys in docs/, and the JSON Schemas of the configs
	$(BIN)/python -m beam_pipelines.reference

tutorial: $(DEV) ## run the tutorial and the example notebook, and write what they print into them
	$(BIN)/python -m tests.documents.notebook
	$(BIN)/python -m tests.documents

pictures: $(DEV) ## make the pictures of docs/pictures/ again, of terminals and of a report; needs chromium
	$(BIN)/python -m tests.documents.pictures $(PICTURES)

bench: $(DEV) ## measure against the peers, side by side; more arguments by BENCH_ARGS
	$(BIN)/python -m benchmarks $(BENCH_ARGS)
	$(BIN)/python -m benchmarks.token_count $(COUNT_BENCH_ARGS)
	$(BIN)/python -m benchmarks.tokenizers_and_texts $(TEXTS_BENCH_ARGS)
	$(BIN)/python -m benchmarks.engine_rates $(ENGINE_BENCH_ARGS)
	$(BIN)/python -m benchmarks.tokenizer_training $(TRAINING_BENCH_ARGS)
	$(BIN)/python -m benchmarks.hub_streaming $(STREAMING_BENCH_ARGS)
	$(BIN)/python -m benchmarks.filtered_build $(FILTERED_BENCH_ARGS)
	$(BIN)/python -m benchmarks.worker_scaling $(SCALING_BENCH_ARGS)
	$(BIN)/python -m benchmarks.random_reads $(READS_BENCH_ARGS)

mutants: $(DEV) ## change the core in thousands of small ways, and see that near tests notice; before a release
	$(BIN)/python -m tests.mutants $(MUTANTS_ARGS)

lock: $(MADE) ## write the lock files from pyproject.toml; UPGRADE=1 takes the newest versions
	$(COMPILE) pyproject.toml --output-file requirements.lock
	$(COMPILE) pyproject.toml --group dev --group bench --constraint requirements.lock \
		--output-file requirements-dev.lock
	$(COMPILE_OTHER) --python-platform x86_64-manylinux_2_35 launch/requirements/trainer_requirements_tpu.in \
		--output-file launch/requirements/trainer_requirements_tpu.lock
	$(COMPILE_OTHER) --universal launch/requirements/trainer_requirements_cpu.in --constraint launch/requirements/trainer_requirements_tpu.lock \
		--output-file launch/requirements/trainer_requirements_cpu.lock
	$(COMPILE_OTHER) --universal launch/requirements/trainer_requirements_gpu.in --constraint launch/requirements/trainer_requirements_tpu.lock \
		--output-file launch/requirements/trainer_requirements_gpu.lock
	$(COMPILE_OTHER) --universal launch/requirements/generation_requirements.in --output-file launch/requirements/generation_requirements.lock
	echo uv | $(COMPILE_OTHER) --universal - --constraint requirements.lock --output-file $(UV_LOCK)

clean: ## remove caches and build products
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .mutants
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## remove .venv too
	rm -rf $(VENV)

$(MADE): .python-version
	@python="$(PYTHON)"; \
	is_312() { "$$@" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' >/dev/null 2>&1; }; \
	if [ -n "$$python" ]; then \
		is_312 "$$python" || { echo "PYTHON=$$python is no Python 3.12. Name one, or leave PYTHON out." >&2; exit 1; }; \
	else \
		for candidate in python3.12 python3 python \
			"$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.12*/bin/python /opt/homebrew/bin/python3.12 /usr/bin/python3.12; do \
			if is_312 "$$candidate"; then python="$$candidate"; break; fi; \
		done; \
		[ -n "$$python" ] || { echo "No Python 3.12 found. Install it (pyenv install 3.12, apt install python3.12-venv," \
			"brew install python@3.12), or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }; \
	fi; \
	echo "Making $(VENV) with $$python"; \
	"$$python" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r $(UV_LOCK)
	@printf '%s' "$(CURDIR)" > $@

$(RUN): $(MADE) requirements.lock pyproject.toml setup.py
	@touch $(BUSY)
	$(SYNC) requirements.lock
	$(INSTALL_PROJECT)
	@# Compiles what the commands import once, for those who forbid Python to do it later: Beam loads 3 s faster.
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -c "import beam_pipelines.tables.datasets, beam_pipelines.cli, grain.python"
	@rm $(BUSY)
	@touch $@

$(DEV): $(RUN) requirements-dev.lock
	@touch $(BUSY)
	$(SYNC) requirements-dev.lock
	$(INSTALL_PROJECT)
	@rm $(BUSY)
	@touch $@
