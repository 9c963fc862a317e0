"""The anthropic package for Python: `metadata.user_id` says who the user is.

python anthropic_python.py URL MODEL USER prints what came back, a JSON object a line.
"""

import json
import sys

import httpx
from anthropic import Anthropic

url, model, user = sys.argv[1:]
client = Anthropic(base_url=url, api_key="none")
asked = {
    "model": model,
    "messages": [{"role": "user", "content": "What is a compiler?"}],
    "metadata": {"user_id": user},
    "max_tokens": 96,
}


def show(**seen):
    sys.stdout.write(json.dumps(seen) + "\n")


reply = client.messages.create(**asked, extra_body={"temperature": 0})
show(whole=reply.content[0].text, state=reply.personalization["state"])

with client.messages.stream(**asked, extra_body={"temperature": 0}) as stream:
    show(streamed="".join(stream.text_stream))

weather = {
    "name": "weather",
    "description": "The weather in a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Oslo"]}},
        "required": ["city"],
    },
}
weather_of = [{"role": "user", "content": "How is the weather in Oslo?"}]
called = client.messages.create(**{**asked, "messages": weather_of}, tools=[weather], tool_choice={"type": "any"})
(call,) = (block for block in called.content if block.type == "tool_use")
show(arguments=call.input)

# It has no `n`: two replies, each with an id.
rejected, chosen = (client.messages.create(**asked, extra_body={"temperature": 1}) for _ in range(2))
show(choices=[rejected.content[0].text, chosen.content[0].text])

vote = {"user_id": user, "chosen_generation_id": chosen.id, "rejected_generation_id": rejected.id}
show(vote=httpx.post(f"{url}/feedback", json=vote).raise_for_status().json())
