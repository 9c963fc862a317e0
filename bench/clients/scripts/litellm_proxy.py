"""LiteLLM's proxy hands on the header that says who the user is, once it is told to. The openai package calls it.

python litellm_proxy.py URL MODEL USER prints what came back, a JSON object a line.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import httpx
from openai import OpenAI

url, model, user = sys.argv[1:]
key = "sk-of-the-proxy"
config = f"""
model_list:
  - model_name: {model}
    litellm_params:
      model: hosted_vllm/{model}
      api_base: {url}/v1
general_settings:
  master_key: {key}
  forward_client_headers_to_llm_api: true
"""


def show(**seen):
    sys.stdout.write(json.dumps(seen) + "\n")


def ask(proxy: str) -> None:
    client = OpenAI(base_url=proxy, api_key=key, default_headers={"x-idiolect-user": quote(user)})
    question = {"role": "user", "content": "What is a compiler?"}

    answer = client.chat.completions.with_raw_response.create(
        model=model, messages=[question], temperature=0, max_tokens=96
    )
    state = answer.headers.get("llm_provider-x-idiolect-personalization")
    show(whole=answer.parse().choices[0].message.content, state=state)

    stream = client.chat.completions.create(model=model, messages=[question], temperature=0, max_tokens=96, stream=True)
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
        max_tokens=96,
    )
    (call,) = called.choices[0].message.tool_calls
    show(arguments=json.loads(call.function.arguments))

    pair = client.chat.completions.create(model=model, messages=[question], n=2, temperature=1, seed=1, max_tokens=96)
    show(choices=[choice.message.content for choice in pair.choices])

    vote = {"user_id": user, "generation_id": pair.id, "chosen_index": 1, "rejected_index": 0}
    show(vote=httpx.post(f"{url}/feedback", json=vote).raise_for_status().json())


with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.close()
    (Path(folder) / "config.yaml").write_text(config)
    command = [str(Path(sys.executable).parent / "litellm"), "--config", "config.yaml", "--host", "127.0.0.1"]
    proxy = subprocess.Popen([*command, "--port", str(port)], cwd=folder, stdout=sys.stderr)
    try:
        for _ in range(240):
            try:
                httpx.get(f"http://127.0.0.1:{port}/health/liveliness").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.5)
        ask(f"http://127.0.0.1:{port}")
    finally:
        proxy.terminate()
        proxy.wait()
