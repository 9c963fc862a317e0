"""The openai package for Python: `user` says who the user is.

python openai_python.py URL MODEL USER prints what came back, a JSON object a line.
"""

import json
import sys

import httpx
from openai import OpenAI

url, model, user = sys.argv[1:]
client = OpenAI(base_url=f"{url}/v1", api_key="none")
question = {"role": "user", "content": "What is a compiler?"}


def show(**seen):
    sys.stdout.write(json.dumps(seen) + "\n")


reply = client.chat.completions.create(model=model, messages=[question], user=user, temperature=0, max_tokens=96)
show(whole=reply.choices[0].message.content, state=reply.personalization["state"])

stream = client.chat.completions.create(
    model=model, messages=[question], user=user, temperature=0, max_tokens=96, stream=True
)
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
called = client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "How is the weather in Oslo?"}],
    tools=[weather],
    tool_choice="required",
    user=user,
    max_tokens=96,
)
(call,) = called.choices[0].message.tool_calls
show(arguments=json.loads(call.function.arguments))

pair = client.chat.completions.create(
    model=model, messages=[question], user=user, n=2, temperature=1, seed=1, max_tokens=96
)
show(choices=[choice.message.content for choice in pair.choices])

vote = {"user_id": user, "generation_id": pair.id, "chosen_index": 1, "rejected_index": 0}
show(vote=httpx.post(f"{url}/feedback", json=vote).raise_for_status().json())
