"""The parser of calls that stands in when none is set."""

from typing import Any

from vllm.entrypoints.generate.base.protocol import DeltaMessage, ExtractedToolCallInformation
from vllm.tool_parsers import ToolParser, ToolParserManager

NO_PARSER = "idiolect-json"


class JsonCalls(ToolParser):  # type: ignore[misc]
    """For models of which nobody has said how they write calls: those that must be made are JSON, by a constraint."""

    def extract_tool_calls(self, model_output: str, request: Any) -> ExtractedToolCallInformation:
        return ExtractedToolCallInformation(tools_called=False, tool_calls=[], content=model_output)

    def extract_tool_calls_streaming(
        self, previous_text: str, current_text: str, delta_text: str, *args: Any, **kwargs: Any
    ) -> DeltaMessage | None:
        return DeltaMessage(content=delta_text) if delta_text else None


def known_parsers() -> list[str]:
    """The names that vLLM has parsers of calls by."""
    return [name for name in ToolParserManager.list_registered() if name != NO_PARSER]


ToolParserManager.register_module(NO_PARSER, module=JsonCalls)
