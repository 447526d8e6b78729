# `make` lists the targets. Settings are variables: make run ENGINE=sim PORT=8090
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
ENGINE ?= vllm
PORT ?= 8080
export ENGINE PORT
# Byte code is kept once a checkout, also where Python is told to write none beside its sources:
# else every process that is started compiles anew all that it imports, vLLM's for half a minute.
export PYTHONPYCACHEPREFIX ?= $(CURDIR)/.parley/cache/python
export PYTHONDONTWRITEBYTECODE :=

PY := .venv/bin/python
PYTEST := $(PY) -m pytest
BOOT := PYTHONPATH=tools/devstack/src $(or $(PYTHON),python3) -m parley_devstack.bootstrap
STACK := $(PY) -m parley_devstack
BEGAN := $(shell date +%s)
SOURCES := services/gateway/src services/session/src services/cache/src services/inference/src \
	services/kit/src loadtest/src tools/devstack/src tools/simulation/parley_simulation \
	tools/pair_judge/parley_pair_judge \
	examples/python tools/settings_doc.py tools/chart_schema.py tools/crds.py \
	tools/images.py tools/proto_surface.py tools/sbom.py tests/conftest.py tests/support tests/chart \
	tests/faults tests/mixed tests/scan tests/upstreams \
	$(filter-out %/cache_semantic %/__pycache__,$(wildcard tests/unit/* tests/integration/*))

##@ Use it

.PHONY: help
help:  ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z][a-z0-9-]*:.*## / {printf "  %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nVariables of run: ENGINE=vllm|sim|openai MODEL= MODEL_ID= PORT=8080 GATEWAYS= SESSIONS= WORKERS= CACHES= ENGINES=\n'
	@printf 'UPSTREAM=http://host:8000/v1 UPSTREAM_KEY_FILE= (of ENGINE=openai) AUTH=none|keys\n'
	@printf 'OTLP_ENDPOINT= MONGODB_URI= REDIS_URL=; PYTHON= names the Python to set up with\n'

.PHONY: run
run:  ## Set up what is missing and start the whole platform, until Ctrl-C
	@$(BOOT) --engine $(ENGINE) --port $(PORT)
	@$(STACK) run --began $(BEGAN)

.PHONY: status
status: .dev  ## Show the parts of the running platform
	@$(STACK) status

.PHONY: setup
setup:  ## Set up everything (both environments, the Java parts, the model) and start nothing
	@$(BOOT) --engine $(ENGINE)
	@$(STACK) setup --began $(BEGAN)

.PHONY: preflight
preflight:  ## Say what this machine lacks, without downloading anything
	@$(BOOT) --engine $(ENGINE) --port $(PORT) --only-preflight

##@ Test it

.PHONY: test
test:  ## Every suite: unit and integration, end to end on sim, end to end on vLLM
	@$(MAKE) --no-print-directory setup ENGINE=vllm
	@$(MAKE) --no-print-directory test-fast test-e2e test-vllm
	@echo "make test passed in $$(( $$(date +%s) - $(BEGAN) )) s"

# Tests wait more than they compute: whole files are given to so many processes, each with stores
# of its own (docs/adr/0024); 0: all in one.
TEST_WORKERS ?= 2
IN_WORKERS := -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: test-fast
test-fast: .dev
	$(PYTEST) tests/unit tests/integration -m 'not vllm' $(IN_WORKERS) $(ARGS)

.PHONY: test-unit
test-unit: .dev  ## Tests that start no server
	$(PYTEST) tests/unit $(ARGS)

.PHONY: test-integration
test-integration: .dev  ## Tests of one service with real stores
	$(PYTEST) tests/integration -m 'not vllm' $(IN_WORKERS) $(ARGS)

.PHONY: test-e2e
test-e2e: .dev  ## The whole platform on the sim engine, and the first of its faults
	$(PYTEST) tests/faults tests/e2e -m 'not vllm and not faults' $(IN_WORKERS) $(ARGS)

.PHONY: test-vllm
test-vllm:  ## The whole platform on vLLM with the small model
	@$(MAKE) --no-print-directory setup ENGINE=vllm
	$(PYTEST) tests/integration/inference/test_vllm.py tests/e2e \
		tests/integration/inference/test_vllm_killed.py -m vllm $(ARGS)

.PHONY: test-engines
test-engines:  ## Every engine, vLLM included, against one suite; vLLM's adapters, eight bits, failing starts
	@$(MAKE) --no-print-directory setup ENGINE=vllm
	$(PYTEST) tests/integration/inference/test_conformance.py $(ARGS)
	$(PYTEST) tests/integration/inference/test_vllm_adapters.py \
		tests/integration/inference/test_vllm_quantised.py \
		tests/integration/inference/test_vllm_starts.py $(ARGS)

.PHONY: test-upstreams
test-upstreams: .dev .venv-upstreams/.made  ## The openai engine before vLLM's own server, llama.cpp's (built here) and Transformers'
	@$(MAKE) --no-print-directory setup ENGINE=vllm
	$(PYTEST) tests/upstreams $(ARGS)
	@cat reports/engines.md

# llama.cpp's server; of it only what infers.
.venv-upstreams/.made: requirements/upstreams.txt requirements/upstreams-build.txt requirements/upstreams.cmake
	@echo 'Building llama.cpp: minutes, a C++ compiler and CMake are needed …'
	.venv/bin/uv venv --quiet --clear --python $(PY) .venv-upstreams
	CMAKE_ARGS='-DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE=$(CURDIR)/requirements/upstreams.cmake' \
		SKBUILD_BUILD_TARGETS='llama;ggml;ggml-base;ggml-cpu' VIRTUAL_ENV=.venv-upstreams \
		.venv/bin/uv pip sync --quiet --require-hashes --build-constraints requirements/upstreams-build.txt $<
	touch $@

.PHONY: test-machine
test-machine: .dev  ## Random callers, crashes, pauses and takeovers of sessions, for minutes (EXAMPLES=)
	PARLEY_MACHINE_EXAMPLES=$(or $(EXAMPLES),3000) $(PYTEST) tests/unit/session/test_machine.py $(ARGS)

.PHONY: check-model
check-model:  ## Explore the model of the run protocol: no violation, and every planted one found
	$(PYTHON) docs/runs_model/model.py fixed
	$(PYTHON) docs/runs_model/model.py page
	$(PYTHON) docs/runs_model/model.py planted
	$(PYTHON) docs/runs_model/model.py held

.PHONY: test-faults
test-faults: .dev  ## Every fault on every part, in mid-answer; the table: reports/fault_matrix.md
	$(PYTEST) tests/faults -m 'not vllm' $(ARGS)

.PHONY: test-faults-vllm
test-faults-vllm:  ## Kill and freeze engines and holders on vLLM; reports/fault_matrix_vllm.md
	@$(MAKE) --no-print-directory setup ENGINE=vllm
	$(PYTEST) tests/faults -m vllm $(ARGS)

.PHONY: test-mixed
test-mixed: .dev  ## Replicas of BASE=<commit> beside today's, over the same stores, as a roll has them
	@[ -n "$(BASE)" ] || { echo 'Say which commit: make test-mixed BASE=<commit>'; exit 1; }
	PARLEY_TEST_BASE=$(BASE) $(PYTEST) tests/mixed $(ARGS)

.PHONY: report-continuation
report-continuation:  ## How often vLLM's greedy answers go on as they would have (reports/continuation.md)
	@$(MAKE) --no-print-directory setup ENGINE=vllm
	PYTHONPATH=tests $(PY) -m support.continuation $(ARGS)

# HELM=, the one on the PATH, or one that is built here from its source, with Go.
HELM_VERSION := v3.22.0
define find_helm
export HELM="$${HELM:-$$(command -v helm || true)}"; \
if [ -z "$$HELM" ] && command -v go >/dev/null; then \
	HELM=$(CURDIR)/.parley/tools/helm; \
	[ -x "$$HELM" ] || { echo 'Building Helm $(HELM_VERSION) …'; \
		GOBIN=$(CURDIR)/.parley/tools go install helm.sh/helm/v3/cmd/helm@$(HELM_VERSION); }; \
fi; \
[ -n "$$HELM" ] || { echo 'No Helm: install it, or Go to build it, or set HELM='; exit 1; };
endef

.PHONY: test-chart
test-chart: .dev  ## Lint and render the chart with Helm (HELM=, on the PATH, or built with Go)
	@$(find_helm) $(PYTEST) tests/chart $(ARGS)

# KUBE_BIN= as for test-discovery; HELM= and PROMTOOL= where they are not on the PATH.
KUBE_SCORE_VERSION := v1.20.0
.PHONY: scan-chart
scan-chart: .dev crds  ## Have a real API server, kube-score and promtool judge what the chart makes
	@command -v kube-score $(CURDIR)/.parley/tools/kube-score >/dev/null || \
		GOBIN=$(CURDIR)/.parley/tools go install \
			github.com/zegl/kube-score/cmd/kube-score@$(KUBE_SCORE_VERSION)
	PATH="$(CURDIR)/.parley/tools:$$PATH" PARLEY_CRDS=$(CURDIR)/.parley/crds \
		PARLEY_TEST_KUBE_BIN="$(KUBE_BIN)" $(PYTEST) tests/scan $(ARGS)

.PHONY: crds
crds:  ## Fetch the CRDs that the chart makes objects for, with Go, at pinned versions
	@$(PYTHON) tools/crds.py .parley/crds

.PHONY: test-discovery
test-discovery: .dev  ## Finding engines, on a real API server; KUBE_BIN= its binary and etcd's
	@test -x "$(KUBE_BIN)/kube-apiserver" -a -x "$(KUBE_BIN)/etcd" || { \
		echo 'Say where kube-apiserver and etcd are: KUBE_BIN=$$(setup-envtest use -p path)'; exit 1; }
	PARLEY_TEST_KUBE_BIN="$(KUBE_BIN)" $(PYTEST) tests/integration/session/test_discovery.py $(ARGS)

# PROMETHEUS=, the one on the PATH, or, on Debian, the one of its package, which is not installed.
define find_prometheus
export PROMETHEUS="$${PROMETHEUS:-$$(command -v prometheus || true)}"; \
if [ -z "$$PROMETHEUS" ] && command -v apt-get >/dev/null; then \
	PROMETHEUS=$(CURDIR)/.parley/tools/prometheus; mkdir -p .parley/tools; \
	[ -x "$$PROMETHEUS" ] || (cd .parley/tools && apt-get download -qq prometheus && \
		dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x --strip-components=3 ./usr/bin/prometheus && \
		rm prometheus_*.deb) || PROMETHEUS=; \
fi; \
[ -n "$$PROMETHEUS" ] || echo 'No Prometheus: set PROMETHEUS=, or its test is skipped';
endef

# POCKET_K8S= names a script that brings a cluster of one node up and down, on this machine.
define bring_up
if [ -n "$(POCKET_K8S)" ]; then \
	$(POCKET_K8S) up || exit; trap '$(POCKET_K8S) down' EXIT; \
	export KUBECONFIG="$$($(POCKET_K8S) kubeconfig)" PARLEY_CLUSTER_IMAGE='$(POCKET_K8S) image' \
		PARLEY_CLUSTER_LOAD='$(POCKET_K8S) load'; \
	state=$$(dirname "$$KUBECONFIG"); \
	export PARLEY_CLUSTER_TASKS="ctr -a $$state/containerd.sock -n k8s.io tasks" \
		PARLEY_CLUSTER_API_PID="$$(cat "$$state/apiserver.pid")"; \
fi;
endef

.PHONY: test-cluster
test-cluster: .dev  ## Install, scale and break the chart on the cluster of KUBECONFIG (CONTRIBUTING.md)
	@$(find_helm) $(find_prometheus) $(bring_up) \
	if [ -n "$(POCKET_K8S)" ]; then $(POCKET_K8S) keda || echo 'No KEDA: its test is skipped'; fi; \
	$(PYTEST) tests/cluster -m 'not vllm' $(ARGS)

# The engine's image as `make images IMAGES=inference-cpu` built it; BUILDER= as there.
.PHONY: test-cluster-vllm
test-cluster-vllm:  ## Engines on vLLM as pods there, one, two and one again while chats flow (BUILDER=)
	@$(MAKE) --no-print-directory setup ENGINE=vllm
	@$(find_helm) $(bring_up) \
	PARLEY_TEST_BUILDER='$(BUILDER)' $(PYTEST) tests/cluster -m vllm $(ARGS)
	@[ ! -e reports/cluster_vllm.md ] || cat reports/cluster_vllm.md

.PHONY: bench-durability
bench-durability: .dev  ## Streamed tokens per second with the run log against without it
	PYTHONPATH=tests $(PY) -m support.durability $(ARGS)

.PHONY: bench
bench: .dev  ## Tokens and requests per second on sim, through the platform against directly
	$(PY) -m parley_loadtest.bench $(ARGS)

.PHONY: bench-cache
bench-cache: .dev  ## The answer cache at 1,000 and 100,000 entries, its peers, and what it saves
	PYTHONPATH=tests $(PY) -m parley_loadtest.cachebench $(ARGS)

.PHONY: bench-peers
bench-peers: bench-litellm bench-vllm  ## Both comparisons with peers: LiteLLM, vLLM's own server

.PHONY: bench-litellm
bench-litellm: .dev .venv-peers/.made  ## Beside LiteLLM's proxy, on the same sim and cores
	$(PY) -m parley_loadtest.peers litellm $(ARGS)

.PHONY: bench-vllm
bench-vllm:  ## Beside vLLM's own OpenAI server, on the same small model
	@$(MAKE) --no-print-directory setup ENGINE=vllm
	$(PY) -m parley_loadtest.peers vllm $(ARGS)

# What the platform is compared with has an environment and a lock of its own.
.venv-peers/.made: requirements/bench-peers.txt
	.venv/bin/uv venv --quiet --clear --python $(PY) .venv-peers
	VIRTUAL_ENV=.venv-peers .venv/bin/uv pip sync --quiet --require-hashes $<
	touch $@

.PHONY: profile
profile: .dev  ## Where the time of an answer and of a token goes, in each process (py-spy)
	$(PY) -m parley_loadtest.profile $(ARGS)

.PHONY: simulate
simulate: .dev  ## Routing and scaling tables of a simulated fleet (ARGS="routing --engines 100")
	PYTHONPATH=tools/simulation $(PY) -m parley_simulation $(ARGS)

.PHONY: simulate-check
simulate-check: .dev  ## How far the simulation is from four real sim engines (ARGS="SEED STRATEGY…")
	PYTHONPATH=tools/simulation $(PY) -m parley_simulation.real $(ARGS)

.PHONY: train-judge
train-judge: .dev  ## Train the cache's judge of pairs into OUT= (an hour on one core; ARGS="--steps 3000")
	$(if $(OUT),,$(error name a folder: make train-judge OUT=/tmp/judge))
	mkdir -p $(OUT)
	$(PY) tests/data/semantic/build_pairs.py --crossed $(OUT)/crossed.tsv
	$(PY) -m parley_devstack.embedding_model $(OUT)/model
	PYTHONPATH=tools/pair_judge:services/cache/src .venv-inference/bin/python -m parley_pair_judge \
		tests/data/semantic/pairs.tsv $(OUT)/crossed.tsv --model $(OUT)/model --out $(OUT) $(ARGS)

.PHONY: loadtest
loadtest: .dev  ## Locust users against a platform on sim, or against HOST=
	$(PY) -m parley_loadtest $(ARGS)

##@ Ship it

# BUILDER= docker, podman or buildah, with its own options; or COMMAND=, called with TAG CONTEXT
# and arguments of `docker build`. IMAGES= names some; those with vLLM are built only if named.
.PHONY: images
images: .dev  ## Build the images (IMAGES= BUILDER= REGISTRY= TAG= COMMAND=); print their sizes
	$(PY) tools/images.py $(IMAGES) $(if $(BUILDER),--builder '$(BUILDER)') \
		$(if $(COMMAND),--command '$(COMMAND)') $(if $(REGISTRY),--registry $(REGISTRY)) \
		$(if $(TAG),--tag $(TAG)) $(ARGS)

# Those that are built; what is not is skipped. BUILDER= as above.
.PHONY: test-images
test-images:  ## Start the engines' images as the chart's pods are, and have each answer (BUILDER=)
	@$(MAKE) --no-print-directory setup ENGINE=vllm
	PARLEY_TEST_BUILDER='$(BUILDER)' $(PYTEST) tests/containers $(ARGS)
	@[ ! -e reports/images.md ] || cat reports/images.md

# One bill an image, from the lock that the image is installed from, held against the schema.
BILLS := gateway session cache inference-base inference-cpu inference-gpu
.PHONY: sbom
sbom: .dev .venv-sbom/.made $(BILLS:%=dist/sbom/parley-%.cdx.json)  ## Write the images' bills of materials (CycloneDX, dist/sbom)

dist/sbom/parley-%.cdx.json: requirements/%.txt tools/sbom.py requirements/sbom.txt | .venv-sbom/.made
	@mkdir -p $(@D)
	@set -o pipefail; echo $@; export PYTHONWARNINGS=ignore; $(PY) tools/sbom.py $< | .venv-sbom/bin/cyclonedx-py requirements --validate \
		--pyproject services/$(firstword $(subst -, ,$*))/pyproject.toml --spec-version 1.6 \
		--output-reproducible --output-format JSON --output-file $@ -

.venv-sbom/.made: requirements/sbom.txt
	.venv/bin/uv venv --quiet --clear --python $(PY) .venv-sbom
	VIRTUAL_ENV=.venv-sbom .venv/bin/uv pip sync --quiet --require-hashes $<
	touch $@

##@ Change it

.PHONY: lint
lint: .dev  ## Check formatting and lint
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

.PHONY: format
format: .dev  ## Format and fix what can be fixed
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

.PHONY: typecheck
typecheck: .dev  ## Check types strictly
	$(PY) -m mypy $(SOURCES)

PROTOS := $(shell find proto/parley -name '*.proto' | sort)
GEN := proto/gen
# $(1): the folder to generate into
define generate
	PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) -m grpc_tools.protoc -Iproto --python_out=$(1) \
		--mypy_out=$(1) --grpc_python_out=$(1) --mypy_grpc_out=$(1) $(PROTOS)
	find $(1)/parley -name '*_pb2*.py' -exec sed -i.orig 's/[ \t]*$$//' {} +
	find $(1)/parley -name '*.orig' -delete
	touch $(1)/parley/py.typed
endef

.PHONY: proto
proto: .dev  ## Generate the protobuf and gRPC code from proto/parley
	rm -rf $(GEN)/parley && mkdir -p $(GEN)
	$(call generate,$(GEN))

.PHONY: proto-check
proto-check: .dev  ## Fail when the committed generated code is not what the protos give
	rm -rf .parley/proto-check && mkdir -p .parley/proto-check
	$(call generate,.parley/proto-check)
	diff -r -x __pycache__ $(GEN)/parley .parley/proto-check/parley \
		|| { echo 'The generated code is out of date: run `make proto` and commit it.'; exit 1; }

.PHONY: docs
docs: .dev  ## Write the pages that are made from the code (OpenAPI, error codes, settings, chart)
	$(PY) -m parley_gateway.openapi
	$(PY) -m parley_gateway.problems_doc
	$(PY) tools/settings_doc.py
	$(PY) tools/chart_schema.py

.PHONY: docs-check
docs-check: .dev  ## Fail when one of them is not what the code gives
	$(PY) -m parley_gateway.openapi --check
	$(PY) -m parley_gateway.problems_doc --check
	$(PY) tools/settings_doc.py --check
	$(PY) tools/chart_schema.py --check

# One lock a deployable, held to the versions that development tests with; UPGRADE=1 takes newer.
COMPILE = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-package parley-kit --no-emit-package parley-proto \
	--custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)
COMMON := services/kit/pyproject.toml proto/pyproject.toml
TESTED := --constraints requirements/dev.txt

.PHONY: lock
lock: .dev  ## Compile the hash-locked requirement files (UPGRADE=1: to the newest versions)
	$(COMPILE) requirements/dev.in $(COMMON) services/gateway/pyproject.toml \
		services/session/pyproject.toml services/cache/pyproject.toml \
		services/inference/pyproject.toml loadtest/pyproject.toml tools/devstack/pyproject.toml \
		-o requirements/dev.txt
	for part in gateway session cache; do \
		$(COMPILE) $(TESTED) $(COMMON) services/$$part/pyproject.toml -o requirements/$$part.txt \
		|| exit 1; done
	$(COMPILE) $(TESTED) proto/pyproject.toml loadtest/pyproject.toml -o requirements/loadtest.txt
	$(COMPILE) $(TESTED) tools/devstack/pyproject.toml -o requirements/devstack.txt
	$(COMPILE) $(TESTED) requirements/build.in -o requirements/build.txt
	$(COMPILE) $(TESTED) $(COMMON) services/inference/pyproject.toml -o requirements/inference-base.txt
	$(COMPILE) requirements/bench-cache.in -o requirements/bench-cache.txt
	$(COMPILE) --overrides requirements/inference-cpu-overrides.txt --extra vllm-cpu $(COMMON) \
		services/inference/pyproject.toml requirements/inference.in -o requirements/inference-cpu.txt
	$(COMPILE) --extra vllm-gpu $(COMMON) \
		services/inference/pyproject.toml requirements/inference.in -o requirements/inference-gpu.txt
	$(COMPILE) requirements/bench-peers.in -o requirements/bench-peers.txt
	$(COMPILE) requirements/sbom.in -o requirements/sbom.txt
	$(COMPILE) requirements/upstreams.in -o requirements/upstreams.txt
	$(COMPILE) requirements/upstreams-build.in -o requirements/upstreams-build.txt

.PHONY: ci
ci:  ## What CI runs
	.ci/run

.PHONY: clean
clean:  ## Remove what tools leave behind; environments, models and data stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist reports .parley/proto-check \
		.parley/cache/python
	find services loadtest tools tests proto -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean  ## Remove everything that set-up made, chats included: a fresh clone again
	@if [ -x $(PY) ] && $(STACK) status >/dev/null 2>&1; then \
		echo 'A stack is running: end it first.'; exit 1; fi
	rm -rf .venv .venv-inference .venv-cache-peers .venv-peers .venv-sbom .venv-upstreams .parley

# The development environment; a moment when it is current.
.PHONY: .dev
.dev:
	@$(BOOT) --engine sim --quiet
