# make setup  .venv with all that is needed, of the newest Python from 3.11 to 3.14 that works (PYTHON=… names one)
# make demo   set-up, then the main job on the shipped sample with a real small model
# make test   set-up, then lint, types and tests
# make test-models   every model family in every quantisation, and the real gemma-3-270m where it is
# make test-shapes   every configuration for CUDA at its model's real shape, on a GPU that is not there: types, devices, memory, waits
# make slow   the tests that `make test` leaves out
# make test-properties   the property tests on other examples each time, five times over
# make test-faults   the long campaigns: kills at random moments and at every renaming, commands side by side, damage, full disks, memory
# make test-gpu   what only a GPU can show, in 8 minutes on one card (DATA=… for other rows, BASE=… for real weights)
# make test-exports  exports in other people's programs: transformers 4.57, and what renders chat templates in node and llama.cpp
# make test-serve    exports in transformers' and llama.cpp's servers (LLAMA_CPP=DIR), and vLLM's (VLLM=1), as a table;
#                    of small models, and of a run of yours (RUN=DIR)
# make test-pythons  the fast tests with every Python that is found, each in an environment of its own (TESTS=… for some of them)
# make lock   requirements.lock anew, after a version changed
# make bench  what is promised about speed, measured: half an hour on two cores (DATA=… for other rows than the sample)
# make bench-peers   the same step under other trainers: TRL as it comes and without padding, alpaca-lora's loop, and
#                    on GPT-NeoX LLaMA-Factory, in an environment of its own (scratch/llama-factory)

PYTHON ?= python3.14 python3.13 python3.12 python3.11 python3
DATA ?= data/sample.jsonl
PROPERTIES = $(shell grep -l "^@given" tests/*.py)
UV := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.requirements-installed
LLAMA_FACTORY := scratch/llama-factory
PACKAGES := -c "import sysconfig; print(sysconfig.get_path('purelib'))"

QUESTION := "図書館は何時に閉まりますか。"
CONTEXT := "みなと町図書館は、火曜日から金曜日までは午前9時から午後8時まで開いています。月曜日は休館日です。"

.PHONY: demo test test-pythons lock test-shapes slow test-properties test-faults bench bench-peers test-gpu test-models test-exports test-serve setup check

# $(call stage,NAME,COMMAND) runs a command and notes how long it took.
stage = @echo "== $(1)"; start=$$(date +%s); $(2) && echo "   $(1): $$(($$(date +%s) - start)) s" >> $(TIMES)
TIMES := $(shell mktemp -u)

demo: setup
	$(call stage,base model,$(BIN)/python -m sft.build_base gemma-3-270m models/gemma-3-270m)
	$(call stage,training,$(BIN)/accelerate launch train_sft.py configs/demo.yaml --force)
	$(call stage,evaluation,$(BIN)/python -m eval runs/demo)
	$(call stage,an answer,$(BIN)/python infer.py runs/demo --both --instruction $(QUESTION) --input $(CONTEXT))
	@echo "== how long it took"; cat $(TIMES); rm $(TIMES)
	@echo "== look further"
	@echo "   the report            runs/demo/eval/report.html"
	@echo "   the training          runs/demo/run.html"
	@echo "   ask in the terminal   $(BIN)/python infer.py runs/demo"
	@echo "   ask in a browser      $(BIN)/python infer.py runs/demo --web"

# Two processes of one thread each; more of them would each take a GB and build the small models anew.
test: setup check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-shapes: setup
	$(BIN)/python -m benchmarks.shapes

test-pythons:
	python3 tests/pythons.py $(TESTS)

slow: setup
	$(BIN)/python -m pytest -m slow

test-properties: setup
	for time in 1 2 3 4 5; do $(BIN)/python -m pytest --hypothesis-profile=default $(PROPERTIES) || exit; done

test-faults: setup
	$(BIN)/python -m pytest -s -m "slow or not slow" tests/test_faults.py tests/test_campaigns.py

bench: setup
	$(BIN)/python -m sft.build_base gemma-3-270m models/gemma-3-270m
	$(BIN)/python -m benchmarks --data $(DATA)

bench-peers: setup $(LLAMA_FACTORY)/.installed
	$(BIN)/python -m sft.build_base gemma-3-270m models/gemma-3-270m
	for base in "" "--base models/gemma-3-270m"; do \
	  $(BIN)/python -m benchmarks.training $$base --dtype bfloat16 --data $(DATA) --repeats 1 \
	    --variants packed,padded,trl-padding-free,trl,alpaca || exit; done
	$(BIN)/python -m benchmarks.training --dtype bfloat16 --data $(DATA) --repeats 1 --variants packed,llama-factory

# Its pins do not go together with ours. They stand in front of our packages, of which it takes all else: PyTorch is the same.
$(LLAMA_FACTORY)/.installed: benchmarks/llama_factory.txt $(READY)
	$(BIN)/python -m venv --clear $(LLAMA_FACTORY)
	$(BIN)/python $(PACKAGES) > "$$($(LLAMA_FACTORY)/bin/python $(PACKAGES))/ours.pth"
	$(LLAMA_FACTORY)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --ignore-installed \
	  --requirement benchmarks/llama_factory.txt
	touch $@

test-gpu: setup
	$(BIN)/python -m benchmarks.gpu --data $(DATA) $(if $(BASE),--base $(BASE))

test-models: setup
	$(BIN)/python -m pytest -m "models or not models" tests/test_models.py

test-exports: setup
	$(BIN)/python -m pytest -m "slow or not slow" tests/test_compatible.py

test-serve: setup
	$(BIN)/python -m pytest -s -q -m slow tests/test_gguf.py tests/test_serve.py

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(READY)

# The file is written last, so an interrupted set-up is done again.
$(READY): requirements.txt requirements/web.txt requirements/judge.txt requirements/dev.txt
	sh make_venv.sh $(VENV) $(PYTHON)
	touch $(READY)

# A Python that somebody names is looked at also where the set-up is done.
ifeq ($(origin PYTHON),command line)
.PHONY: $(READY)
endif

# One file for every Python and system. A machine of its own index would write its address into it, and other hashes.
lock: setup
	$(BIN)/python -m pip install --quiet --target scratch/uv uv==$(UV)
	scratch/uv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --quiet \
	  --no-config --output-file requirements.lock requirements.txt requirements/*.txt
