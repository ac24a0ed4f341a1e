# Everything that Mailback needs on a fresh Debian or Ubuntu, from one command each:
#
#   make run      install what is needed into .venv and start the receiver, the milter and the policy service
#   make test     install what the tests need (Postfix included) and run them
#   make lint     ruff, mypy --strict, import-linter
#   make demo     a minute's tour, nothing to set up
#   make bench    the measurements behind docs/performance.md
#   make docs     write the generated pages: configuration, commands, the picture of the demo
#
# All of them may be called again at any time: what is there already is not installed twice.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: run test lint demo bench docs clean

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := .stamps
TESTS  ?= tests

# Each package with its reason. python3-venv: Debian ships Python without it.
RUN_PACKAGES  := python3-venv
# postfix (and its table types): the tests talk to a real one; swaks: an SMTP client of its own; dovecot-imapd: an IMAP
# server to read mailboxes from; systemd: systemd-analyze checks the units.
TEST_PACKAGES := postfix postfix-sqlite postfix-cdb swaks dovecot-imapd systemd
# opendkim: the peer that the milter is measured against.
BENCH_PACKAGES := opendkim

run: $(STAMPS)/run
	@mkdir -p state
	@exec $(BIN)/mailback serve --config config/run.toml

demo: $(STAMPS)/run
	@$(BIN)/mailback demo

# A private Postfix starts as root only (its daemons change user), and some tests become another user: without root those
# go through sudo.
test: $(STAMPS)/test
	@if [ "$$(id -u)" = 0 ]; then \
	  $(BIN)/pytest -n auto --dist loadfile $(TESTS); \
	elif [ "$(TESTS)" = tests ]; then \
	  $(BIN)/pytest -n auto --dist loadfile --ignore tests/postfix tests && \
	  sudo $(BIN)/pytest -p no:cacheprovider tests/postfix && \
	  sudo $(BIN)/pytest -p no:cacheprovider -m root --ignore tests/postfix tests; \
	else \
	  $(BIN)/pytest -n auto --dist loadfile $(TESTS); \
	fi

lint: $(STAMPS)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMPS)/bench
	$(BIN)/python bench/report.py docs/performance.md

docs: $(STAMPS)/run
	$(BIN)/mailback config show --reference > docs/configuration.md
	$(BIN)/mailback config show --template > config/mailback.toml
	$(BIN)/python -m mailback.cli.reference > docs/commands.md
	$(BIN)/mailback demo --picture docs/demo.svg > /dev/null

clean:
	rm -rf $(VENV) $(STAMPS) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# --- installation ---------------------------------------------------------------------------------------------

# $(call install-packages,LIST): install the Debian packages of LIST that are missing, with sudo only where needed.
define install-packages
	@missing=""; \
	for package in $(1); do \
	  [ "$$(dpkg-query -W -f='$${db:Status-Abbrev}' $$package 2>/dev/null | cut -c1-2)" = ii ] || missing="$$missing $$package"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	command -v apt-get >/dev/null || { echo "Mailback needs these Debian packages, and there is no apt-get here:$$missing"; exit 1; }; \
	as=""; \
	if [ "$$(id -u)" != 0 ]; then \
	  command -v sudo >/dev/null || { echo "Mailback needs these packages, and you are neither root nor is sudo here. Ask root to run:"; \
	    echo "  apt-get install$$missing"; exit 1; }; \
	  as="sudo"; \
	fi; \
	echo "installing$$missing"; \
	if [[ "$$missing" == *postfix* ]]; then \
	  echo "postfix postfix/main_mailer_type select No configuration" | $$as debconf-set-selections; \
	fi; \
	$$as apt-get update -q; \
	$$as env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing
endef

$(STAMPS):
	@mkdir -p $(STAMPS)

$(STAMPS)/run-packages: Makefile | $(STAMPS)
	$(call install-packages,$(RUN_PACKAGES))
	@touch $@

$(STAMPS)/test-packages: $(STAMPS)/run-packages
	$(call install-packages,$(TEST_PACKAGES))
	@touch $@

$(STAMPS)/bench-packages: $(STAMPS)/test-packages
	$(call install-packages,$(BENCH_PACKAGES))
	@touch $@

$(STAMPS)/run: pyproject.toml $(STAMPS)/run-packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Mailback needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(STAMPS)/test: $(STAMPS)/run $(STAMPS)/test-packages
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[learn,llm,web,test]'
	@# The public SPF vectors come with pyspf's source package only; they are not ours to copy.
	@rm -rf $(STAMPS)/pyspf
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest $(STAMPS)/pyspf pyspf
	@touch $@

$(STAMPS)/lint: $(STAMPS)/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[learn,llm,web,test,bench,lint]'
	@touch $@

$(STAMPS)/bench: $(STAMPS)/test $(STAMPS)/bench-packages
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[learn,llm,web,test,bench]'
	@touch $@
