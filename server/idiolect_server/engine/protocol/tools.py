"""Tools that the model may call, as the protocols give them: bounded, before a template writes them out.

What a call must look like (`tool_choice` required, or one tool's name) becomes a constraint in vLLM, which is bounded
and tried like any other (`rendering.py`).
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from idiolect_server.engine.protocol.fields import Part, Unicode, unicode_text
from idiolect_server.engine.structured.pattern import MAX_NESTING

MAX_TOOLS = 128

ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")]


def texts_in(value: Any, of_schemas: int = 1) -> list[str]:
    """All texts in a value of JSON, names too. Raises ValueError for one that is nested deeply.

    `of_schemas`: how deep in it the schemas stand.
    """
    texts, level = list[str](), [value]
    for _ in range(MAX_NESTING + of_schemas):
        below = list[Any]()
        for each in level:
            if isinstance(each, dict):
                texts += each
                below += each.values()
            elif isinstance(each, list):
                below += each
            elif isinstance(each, str):
                texts.append(each)
        level = below
        if not level:
            return texts
    raise ValueError(f"objects and lists may stand in one another {MAX_NESTING} times")


def schema(value: dict[str, Any]) -> dict[str, Any]:
    """A schema of parameters."""
    for text in texts_in(value):
        unicode_text(text)
    return value


Schema = Annotated[dict[str, Any], AfterValidator(schema)]


def strict(function: dict[str, Any], must: bool) -> dict[str, Any]:
    """A tool as it is passed on. Where a call must be made, its arguments follow the schema, whatever the caller says.

    Left free they would be any JSON, such as a text, which clients cannot read.
    """
    if "function" in function:
        return {**function, "function": strict(function["function"], must)}
    return {**function, "strict": True} if must else function


class Function(Part):
    name: ToolName
    description: Unicode | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class Tool(Part):
    """As chat completions have it."""

    type: Literal["function"] = "function"
    function: Function

    @property
    def texts(self) -> list[str]:
        return texts_in(self.model_dump(), of_schemas=3)


class NamedFunction(Part):
    name: ToolName


class ToolChoice(Part):
    """One tool, which the reply calls."""

    type: Literal["function"] = "function"
    function: NamedFunction


class WithTools(Part):
    """The part of a request that is about tools. No tools are as none given."""

    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _can_be_called(self) -> Self:
        if self.tool_choice == "required" and not self.tools:
            raise ValueError("tool_choice required wants tools")
        if isinstance(self.tool_choice, ToolChoice):
            name = self.tool_choice.function.name
            if name not in {tool.function.name for tool in self.tools or ()}:
                raise ValueError(f"tool_choice names {name!r}, which is none of tools")
        return self

    @property
    def leaves_it_to_the_model(self) -> bool:
        """Whether to call a tool, so that only the model's own way of writing calls tells."""
        return bool(self.tools) and self.tool_choice in (None, "auto")

    def tools_passed(self) -> dict[str, Any]:
        """As vLLM takes them."""
        if not self.tools:
            return {}
        must = self.tool_choice not in (None, "auto", "none")
        named = isinstance(self.tool_choice, ToolChoice)
        choice = {"tool_choice": self.tool_choice.model_dump() if named else self.tool_choice}  # type: ignore[union-attr]
        parallel = {} if self.parallel_tool_calls is None else {"parallel_tool_calls": self.parallel_tool_calls}
        return {
            "tools": [strict(tool.model_dump(exclude_none=True), must) for tool in self.tools],
            **({} if self.tool_choice is None else choice),
            **parallel,
        }
