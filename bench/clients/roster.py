"""The clients that nobody here wrote, each with a script in `scripts` that reads as its users would write it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"


@dataclass(frozen=True)
class ForeignClient:
    """A row of the table. `cannot` says why it leaves a cell empty, by the cell's name (`ticks.CELLS`)."""

    name: str
    script: str
    package: str
    pins: str
    """The file in `scripts` that says which version: requirements, or package.json."""
    how: str
    """How its script says who the user is, in Markdown."""
    cannot: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """That is installed: every version is pinned exactly."""
        text = (SCRIPTS / self.pins).read_text()
        if self.pins.endswith(".json"):
            return str(json.loads(text)["dependencies"][self.package])
        return next(line.partition("==")[2] for line in text.splitlines() if line.startswith(f"{self.package}=="))


LATEST, OLDER = "latest.txt", "older_openai.txt"
"""Two environments: Instructor and LiteLLM's proxy do not take the latest openai package."""
NPM = "package.json"
CLIENTS = (
    ForeignClient("openai (Python)", "openai_python.py", "openai", LATEST, "`user=`"),
    ForeignClient("openai (npm)", "openai_node.mjs", "openai", NPM, "`safety_identifier`"),
    ForeignClient("LangChain", "langchain_python.py", "langchain-openai", LATEST, "`.bind(user=…)`"),
    ForeignClient(
        "LiteLLM",
        "litellm_python.py",
        "litellm",
        LATEST,
        "`extra_headers`; it drops `user` for models that it does not know",
    ),
    ForeignClient(
        "LiteLLM's proxy",
        "litellm_proxy.py",
        "litellm",
        OLDER,
        "its caller's header, with `forward_client_headers_to_llm_api`",
    ),
    ForeignClient("Instructor", "instructor_python.py", "instructor", OLDER, "`user=`"),
    ForeignClient("Vercel `ai`", "vercel_ai.mjs", "ai", NPM, "`headers` of `createOpenAICompatible`"),
    ForeignClient(
        "`llm`",
        "llm_cli.sh",
        "llm",
        LATEST,
        "`headers` in `extra-openai-models.yaml`",
        {"tools": "its user cannot say that a tool must be called"},
    ),
    ForeignClient("anthropic (Python)", "anthropic_python.py", "anthropic", LATEST, "`metadata`, its `user_id`"),
)
