"""LangChain (langchain-openai): `bind(user=...)` says who the user is.

python langchain_python.py URL MODEL USER prints what came back, a JSON object a line.
"""

import json
import sys
from typing import Literal

import httpx
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

url, model, user = sys.argv[1:]
settings = {"model": model, "base_url": f"{url}/v1", "api_key": "none", "max_tokens": 96}
chat = ChatOpenAI(**settings, temperature=0, include_response_headers=True).bind(user=user)
question = "What is a compiler?"


def show(**seen):
    sys.stdout.write(json.dumps(seen) + "\n")


@tool
def weather(city: Literal["Paris", "Oslo"]) -> str:
    """The weather in a city."""
    return f"It rains in {city}."


reply = chat.invoke(question)
show(whole=reply.content, state=reply.response_metadata["headers"]["x-idiolect-personalization"])

show(streamed="".join(chunk.content for chunk in chat.stream(question)))

called = (
    ChatOpenAI(**settings).bind_tools([weather], tool_choice="any").invoke("How is the weather in Oslo?", user=user)
)
(call,) = called.tool_calls
show(arguments=call["args"])

drawn = ChatOpenAI(**settings, temperature=1)  # with n=2, LangChain would keep the completion's id to itself
pair = [drawn.invoke(question, user=user, seed=seed) for seed in (1, 2)]
show(choices=[reply.content for reply in pair])

first, second = (reply.response_metadata["id"] for reply in pair)
vote = {"user_id": user, "chosen_generation_id": second, "rejected_generation_id": first}
show(vote=httpx.post(f"{url}/feedback", json=vote).raise_for_status().json())
