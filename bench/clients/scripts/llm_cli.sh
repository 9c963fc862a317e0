#!/usr/bin/env bash
# llm, the command line: a header in its list of models says who the user is.
#
# bash llm_cli.sh URL MODEL USER prints what came back, a JSON object a line.
set -euo pipefail
url=$1 model=$2 user=$3

LLM_USER_PATH=$(mktemp -d) # instead of the folder that llm keeps in the home
export LLM_USER_PATH
trap 'rm -r "$LLM_USER_PATH"' EXIT
cat >"$LLM_USER_PATH/extra-openai-models.yaml" <<YAML
- model_id: mine
  model_name: $model
  api_base: $url/v1
  headers: {x-idiolect-user: $user}
YAML

show() { python3 -c 'import json, sys; print(json.dumps({sys.argv[1]: sys.argv[2]}))' "$1" "$2"; }
completion_id() { llm logs --count 1 --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["response_json"]["id"])'; }

show whole "$(llm -m mine --no-stream -o temperature 0 -o max_tokens 96 "What is a compiler?")"
show streamed "$(llm -m mine -o temperature 0 -o max_tokens 96 "What is a compiler?")"

# It has no `n`: two replies, each with an id.
first=$(llm -m mine --no-stream -o temperature 1 -o seed 1 -o max_tokens 96 "What is a compiler?")
rejected=$(completion_id)
second=$(llm -m mine --no-stream -o temperature 1 -o seed 2 -o max_tokens 96 "What is a compiler?")
chosen=$(completion_id)
python3 -c 'import json, sys; print(json.dumps({"choices": sys.argv[1:]}))' "$first" "$second"

vote="{\"user_id\": \"$user\", \"chosen_generation_id\": \"$chosen\", \"rejected_generation_id\": \"$rejected\"}"
answer=$(curl -sS --fail "$url/feedback" -H "content-type: application/json" -d "$vote")
echo "{\"vote\": $answer}"
