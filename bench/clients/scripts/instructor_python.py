"""Instructor over the openai package: `user` says who the user is. Typed replies are calls of tools, as is its default.

python instructor_python.py URL MODEL USER prints what came back, a JSON object a line.
"""

import json
import sys
from typing import Literal

import httpx
import instructor
from openai import OpenAI
from pydantic import BaseModel

url, model, user = sys.argv[1:]
client = instructor.from_openai(OpenAI(base_url=f"{url}/v1", api_key="none"))
question = {"role": "user", "content": "What is a compiler?"}
asked = {"model": model, "messages": [question], "user": user, "max_tokens": 96, "response_model": None}


class Weather(BaseModel):
    """The weather in a city."""

    city: Literal["Paris", "Oslo"]


def show(**seen):
    sys.stdout.write(json.dumps(seen) + "\n")


reply = client.create(**asked, temperature=0)
show(whole=reply.choices[0].message.content, state=reply.personalization["state"])

stream = client.create(**asked, temperature=0, stream=True)
show(streamed="".join(chunk.choices[0].delta.content or "" for chunk in stream))

weather = client.create(
    model=model,
    messages=[{"role": "user", "content": "How is the weather in Oslo?"}],
    user=user,
    max_tokens=96,
    response_model=Weather,
)
show(arguments=weather.model_dump())

pair = client.create(**asked, n=2, temperature=1, seed=1)
show(choices=[choice.message.content for choice in pair.choices])

vote = {"user_id": user, "generation_id": pair.id, "chosen_index": 1, "rejected_index": 0}
show(vote=httpx.post(f"{url}/feedback", json=vote).raise_for_status().json())
