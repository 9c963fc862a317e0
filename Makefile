# The project's commands. Each sets up what it needs; `make help` lists them.
VENV ?= .venv
PY := $(VENV)/bin/python
IDIOLECT := $(VENV)/bin/idiolect
BUNDLE ?= training/runs/demo/bundle
RUN ?= training/runs/demo/run.yaml
OUT ?= runs/demo
SEEDS ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup model fmt check fast test demo serve train tastes first-minutes penalty own-data length-users attribute-users persona-users new-users five-answers feedback weak-votes newcomers odd-values overload storm greedy vote-histories crashes hostile-bundles hostile-requests openapi heart million-users throughput first-token peers one-at-a-time host-cost engine-settings busy-host before-after cost-model ablations few-votes trainer-cost real-people served-models gpu first-hour bench evidence check-results lock ties page page-minute page-views audit docs generated-clients newest-vllm vllm-tests clients

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

setup:  ## virtual environment with everything (4 minutes the first time)
	@docker/install.sh $(VENV) serve-cpu,training,dev

page: setup  ## build the page that the server shows at / (needs npm)
	@$(PY) -m tests.page.build

model: setup  ## the demo model, converted once into the cache folder
	@$(IDIOLECT) model

fmt: setup  ## format the code
	@$(VENV)/bin/ruff format -q . && $(VENV)/bin/ruff check -q --fix .

check: setup audit  ## formatting, lint, types and audit
	@$(VENV)/bin/ruff format --check . && $(VENV)/bin/ruff check . && $(VENV)/bin/mypy
	@$(VENV)/bin/mypy --strict --config-file clients/python/pyproject.toml clients/python/idiolect_client

fast: setup  ## the tests that start no engine and take no seconds: a minute
	@$(PY) -m pytest -q -m 'not engine and not slow'

test: check model  ## everything that CI runs: checks and all tests, on real vLLM and real Redis
	@$(PY) -m pytest

demo: model  ## two strangers answer five questions each, and become somebody
	@$(PY) -m tests.demo

serve: model  ## serve $(BUNDLE) on http://127.0.0.1:8000
	@IDIOLECT_BUNDLE=$${IDIOLECT_BUNDLE:-$(BUNDLE)} $(IDIOLECT) serve

train: model  ## train the demo bundle again (three quarters of an hour on two cores)
	@$(IDIOLECT) train $(RUN) --out $(OUT) --bundle $(BUNDLE)

tastes: model  ## do users and strangers of the demo bundle get what they want, in words worth reading? (half an hour)
	@$(PY) -m bench.demo.tastes

first-minutes: setup  ## `make demo` from a fresh clone and an empty home, timed (10 minutes)
	@$(PY) -m bench.demo.first_minutes

penalty: model  ## which frequency penalty should the demo bundle state? (quarter of an hour)
	@$(PY) -m bench.demo.penalty

page-minute: model  ## the minute of a stranger on the page, timed, in Chromium and on the real engine, with pictures (3 minutes)
	@$(PY) -m bench.page.minute

page-views: model  ## every test of the page, five times in a row (8 minutes)
	@$(PY) -m bench.page.views

own-data: setup  ## README's five commands, from 200 comparisons to a served bundle, timed
	@$(PY) -m bench.demo.own_data

length-users: model  ## ten simulated users, seven against three, P-DPO beside pooled, three seeds
	@$(PY) -m bench.learning.length_users $(SEEDS)

attribute-users: model  ## six simulated users in three opposed pairs, P-DPO beside pooled, three seeds
	@$(PY) -m bench.learning.attribute_users $(SEEDS)

persona-users: model  ## does the cluster model recover kinds of users? needs ../shared/data
	@$(PY) -m bench.learning.persona_users $(SEEDS)

new-users: attribute-users persona-users  ## users whom the trainer never saw: accuracy against answers, calibration
	@$(PY) -m bench.people.new_users

five-answers: length-users  ## replies to new users after five answers through the HTTP API, on real vLLM
	@$(PY) -m bench.learning.five_answers

feedback: length-users  ## latency of votes, and what background scoring costs replies
	@$(PY) -m bench.learning.feedback

weak-votes: setup  ## what thumbs and edits tell of a stranger, and how much they should count (5 minutes)
	@$(PY) -m bench.learning.weak_votes $(SEEDS)

newcomers: setup  ## simulated strangers who slip, mislead and change, as the server infers them (8 minutes)
	@$(PY) -m bench.people.newcomers $(SEEDS)

odd-values: model  ## 2,000 values in Redis that are not ours, under every kind of key (10 minutes)
	@$(PY) -m bench.hostile.odd_values

overload: model  ## ten times the requests that the engine can answer, for two minutes (5 minutes)
	@$(PY) -m bench.hostile.overload

storm: model  ## sixteen polite callers beside twenty hostile ones, for five minutes (11 minutes)
	@$(PY) -m bench.hostile.storm

greedy: model  ## one user's 100,000 votes, 10,000 erasures, a full Redis and a full disk (10 minutes)
	@$(PY) -m bench.hostile.greedy

vote-histories: model  ## 500 histories of votes with retrainings: who counts which votes (2 minutes)
	@$(PY) -m bench.learning.vote_histories

crashes: model  ## server and Redis killed at random under 10,000 votes (6 minutes)
	@$(PY) -m bench.faults.crashes

hostile-requests: model  ## hostile fields, forms and texts beside a polite caller (5 minutes)
	@$(PY) -m bench.hostile.requests

openapi: model  ## ten thousand requests that are derived from /openapi.json, right and wrong, answered as it says? (20 minutes)
	@$(PY) -m bench.clients.openapi

vllm-tests: model  ## vLLM's own tests of its OpenAI server, against `vllm serve` and against Idiolect (40 minutes)
	@$(PY) -m bench.clients.vllm_tests

newest-vllm: model  ## the engine's contract on the newest vLLM, and what has moved in it (5 minutes)
	@$(PY) -m tests.newest_vllm

generated-clients: model  ## clients that generators make of /openapi.json, in Python and TypeScript: do they do all of it? needs npm (3 minutes)
	@$(PY) -m bench.clients.generated

clients: model  ## clients that nobody here wrote, unmodified, against the real server: a table of ticks (quarter of an hour)
	@$(PY) -m bench.clients.frameworks

hostile-bundles: setup  ## 2,000 changed bundles: each refused in words, or read as it is (a minute)
	@$(PY) -m bench.hostile.bundles

heart: model  ## engine stopped, killed or looping, and SIGTERM during streams, 20 times in a row (half an hour)
	@$(PY) -m bench.hostile.heart

million-users: model  ## a million users in Redis and in the server: bytes, seconds, memory (half an hour)
	@$(PY) -m bench.serving.million_users

throughput: model  ## tokens per second with a million users over ten, and over plain `vllm serve` and in process (half an hour)
	@$(PY) -m bench.serving.throughput

first-token: model  ## time to the first token: user tokens after a shared system prompt, and instead of a history
	@$(PY) -m bench.serving.first_token

peers: model  ## tokens per second over one LoRA per user in vLLM, and over prompt embeddings over HTTP (half an hour)
	@$(PY) -m bench.serving.peers

one-at-a-time: first-token  ## tokens per second over Hugging Face, one prompt at a time, without and with a KV cache
	@$(PY) -m bench.serving.one_at_a_time

host-cost: model  ## CPU time that personalizing adds to a request, for short and long prompts
	@$(PY) -m bench.serving.host_cost

engine-settings: model  ## what the settings of vLLM that we choose for a CPU are worth (quarter of an hour)
	@$(PY) -m bench.serving.engine_settings

busy-host: model  ## what is left of the engine's speed when others compute on its cores (10 minutes)
	@$(PY) -m bench.serving.busy_host

before-after: model  ## this checkout's server over that of OTHER, another checkout with a .venv
	@$(PY) -m bench.serving.before_after $(OTHER) $(COMMAND)

cost-model: setup  ## print the computed table of docs/cost.md
	@$(PY) -m bench.serving.cost_model

ablations: model  ## user tokens, alpha, start against votes per user, placement
	@$(PY) -m bench.learning.ablations

few-votes: model  ## how far users of one to five votes go from the generic user, by `prior`, and whether it is good for them
	@$(PY) -m bench.learning.few_votes $(SEEDS)

trainer-cost: model  ## a million users against ten, memory, and the trainer's speed beside TRL's
	@docker/install.sh $(VENV) serve-cpu,training,dev,bench
	@$(PY) -m bench.trainer.trainer_cost

ties: setup  ## no preference as an answer: real people and simulated strangers; needs ../shared/data (20 minutes)
	@$(PY) -m bench.people.ties $(SEEDS)

real-people: model  ## votes of real people, reward track: global against personal; needs ../shared/data
	@$(PY) -m bench.people.real_people

served-models: model  ## tiny models of every architecture, trained and served by vLLM, by both injections (20 minutes)
	@$(PY) -m bench.models.served

gpu: model  ## five minutes on a GPU host: start, exactness, speed; without a GPU, every step on the CPU with a tiny model
	@$(PY) -m bench.gpu.check

first-hour: model  ## build the images, then do what docs/first-hour.md says, without a container engine (as root; quarter of an hour)
	@$(PY) -m bench.images.first_hour

bench: throughput first-token peers one-at-a-time host-cost million-users  ## all serving benchmarks, and their plots in docs/results (two hours)
	@$(PY) -m bench.serving.plots

evidence: model  ## run the integration tests and keep what they measure in bench/history.jsonl
	@$(PY) -m pytest tests/integration tests/contract tests/unit/project --evidence && $(PY) -m bench table

check-results: setup  ## recompute every verdict; fails and names what is missed
	@$(PY) -m bench check

lock: setup  ## write what is installed to docker/lock, each file with its hash
	@$(PY) docker/lock.py

audit: setup  ## known vulnerabilities of the locked packages, and faults of the images' recipes
	@$(PY) docker/audit.py

docs: setup  ## regenerate docs/settings.md, the verdicts in docs/results.md, and the tables of clients
	@$(PY) -m tests.settings_page && $(PY) -m bench table
