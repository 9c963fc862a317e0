"""LiteLLM as a library: a header says who the user is. `user` it drops, for models that it does not know.

python litellm_python.py URL MODEL USER prints what came back, a JSON object a line.
"""

import json
import sys
from urllib.parse import quote

import httpx
import litellm

url, model, user = sys.argv[1:]
asked = {
    "model": f"hosted_vllm/{model}",
    "api_base": f"{url}/v1",
    "messages": [{"role": "user", "content": "What is a compiler?"}],
    "extra_headers": {"x-idiolect-user": quote(user)},
    "temperature": 0,
    "max_tokens": 96,
}


def show(**seen):
    sys.stdout.write(json.dumps(seen) + "\n")


reply = litellm.completion(**asked)
headers = reply._hidden_params["additional_headers"]
show(whole=reply.choices[0].message.content, state=headers["llm_provider-x-idiolect-personalization"])

stream = litellm.completion(**asked, stream=True)
show(streamed="".join(chunk.choices[0].delta.content or "" for chunk in stream))

weather = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Oslo"]}},
            "required": ["city"],
        },
    },
}
weather_of = [{"role": "user", "content": "How is the weather in Oslo?"}]
called = litellm.completion(**{**asked, "messages": weather_of}, tools=[weather], tool_choice="required")
(call,) = called.choices[0].message.tool_calls
show(arguments=json.loads(call.function.arguments))

pair = litellm.completion(**{**asked, "temperature": 1}, n=2, seed=1)
show(choices=[choice.message.content for choice in pair.choices])

vote = {"user_id": user, "generation_id": pair.id, "chosen_index": 1, "rejected_index": 0}
show(vote=httpx.post(f"{url}/feedback", json=vote).raise_for_status().json())
