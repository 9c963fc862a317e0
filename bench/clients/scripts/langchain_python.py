"""LangChain (langchain-openai): `bind(user=...)` says who the user is.

python langchain_python.py URL MODEL USER prints what came back, a JSON object a line.
"""

import json
import sys
from typing import Literal

import httpx
from langchain_core.messages import HumanMessage
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

both = ChatOpenAI(**settings, temperature=1, seed=1, n=2).generate([[HumanMessage(question)]], user=user)
pair = both.generations[0]
show(choices=[choice.text for choice in pair])

completion_id = pair[0].message.response_metadata["id"]
vote = {"user_id": user, "generation_id": completion_id, "chosen_index": 1, "rejected_index": 0}
show(vote=httpx.post(f"{url}/feedback", json=vote).raise_for_status().json())
