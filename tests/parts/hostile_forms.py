"""Forms of a reply that hostile callers ask for: schemas, patterns, grammars; and the statuses they get."""

import json
from typing import Any

REFUSED, TAKEN = (400, 404), (200,)
EITHER = REFUSED + TAKEN
"""Bounded: the trial decides."""


def format_of(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def outputs(**asked: Any) -> dict[str, Any]:
    return {"structured_outputs": asked}


def chained(n: int, rule: str) -> str:
    """A grammar of n rules; `rule` says how each, {i}, takes up the next one, {j}."""
    rules = [rule.format(i=f"r{number}", j=f"r{number + 1}") for number in range(n)]
    return "\n".join(["root ::= r0", *rules, f'r{n} ::= "a"'])


def nested(n: int, inner: Any, around: Any) -> Any:
    for _ in range(n):
        inner = around(inner)
    return inner


DEEP = nested(200, {}, lambda inner: {"type": "object", "properties": {"a": inner}})
SCHEMAS: dict[str, tuple[Any, tuple[int, ...]]] = {
    # name -> schema, statuses
    "10^12 items": ({"type": "array", "minItems": 10**12, "items": {}}, REFUSED),
    "2^31 items": ({"type": "array", "minItems": 2**31 - 1, "items": {}}, REFUSED),
    "10^12 items as float": ({"type": "array", "minItems": 1e12, "items": {}}, REFUSED),
    "infinite items": ({"type": "array", "minItems": float("inf"), "items": {}}, REFUSED),
    "items below": ({"type": "array", "minItems": -5, "items": {}}, EITHER),
    "items as text": ({"type": "array", "minItems": "1000000000000"}, EITHER),
    "10^9 at most": ({"type": "array", "maxItems": 10**9, "items": {"type": "string"}}, REFUSED),
    "lists of lists": (
        nested(4, {}, lambda inner: {"type": "array", "minItems": 500, "maxItems": 500, "items": inner}),
        REFUSED,
    ),
    "1,000 characters": ({"type": "string", "minLength": 1000, "maxLength": 1000}, EITHER),
    "10^9 characters": ({"type": "string", "minLength": 10**9}, REFUSED),
    "10^9 properties": ({"type": "object", "minProperties": 10**9}, REFUSED),
    "contains 10^9": ({"type": "array", "contains": {}, "minContains": 10**9}, REFUSED),
    "prefix and 10^9": ({"type": "array", "prefixItems": [{}], "minItems": 10**9}, REFUSED),
    "counts in a definition": ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "minItems": 10**10}}}, REFUSED),
    "counts in anyOf": ({"anyOf": [{"type": "array", "minItems": 10**10}]}, REFUSED),
    "counts in items of items": ({"type": "array", "items": {"type": "array", "maxItems": 10**10}}, REFUSED),
    "nested deeply": (DEEP, REFUSED),
    "nested in lists": (nested(100, {}, lambda inner: {"anyOf": [inner]}), REFUSED),
    "30,000 parentheses": ({"type": "string", "pattern": "(" * 30_000 + "a" + ")" * 30_000}, REFUSED),
    "900 parentheses": ({"type": "string", "pattern": "(" * 900 + "a" + ")" * 900}, REFUSED),
    "900 stars": ({"type": "string", "pattern": "(" * 600 + "a" + ")*" * 600}, REFUSED),
    "3 stars": ({"type": "string", "pattern": "(((a)*)*)*"}, REFUSED),
    "pattern of repetitions": ({"type": "string", "pattern": "(.{1,500}b){1,500}"}, REFUSED),
    "pattern in a property name": ({"type": "object", "patternProperties": {"(" * 900 + ")" * 900: {}}}, REFUSED),
    "stars in a property name": ({"type": "object", "patternProperties": {"^(((a)*)*)*$": {}}}, REFUSED),
    "pattern in propertyNames": ({"type": "object", "propertyNames": {"pattern": "(((a)+)+)+"}}, REFUSED),
    "pattern in $defs": (
        {"$defs": {"a": {"type": "string", "pattern": "((a{2,}){2,}){2,}"}}, "$ref": "#/$defs/a"},
        REFUSED,
    ),
    "pattern in not": ({"not": {"pattern": "(a?){4000}"}}, REFUSED),
    "pattern in if": ({"if": {"pattern": "(a{1,90}){1,90}"}, "then": {}}, REFUSED),
    "pattern in dependentSchemas": ({"dependentSchemas": {"a": {"pattern": "(" * 99 + ")" * 99}}}, REFUSED),
    "pattern in additionalProperties": ({"additionalProperties": {"pattern": "((.*)*)*"}}, REFUSED),
    "patterns of many": (
        {"type": "object", "properties": {f"p{n}": {"type": "string", "pattern": "[a-z]{900}"} for n in range(60)}},
        REFUSED,
    ),
    "pattern with a NUL": ({"type": "string", "pattern": "a\0b"}, EITHER),
    "pattern that is broken": ({"type": "string", "pattern": "(["}, REFUSED),
    "pattern with a look ahead": ({"type": "string", "pattern": "(?=a)a"}, EITHER),
    "pattern with a back reference": ({"type": "string", "pattern": "(a)\\1"}, EITHER),
    "20,000 values": ({"enum": list(range(20_000))}, REFUSED),
    "500 values": ({"enum": [f"v{number}" for number in range(500)]}, EITHER),
    "3,000 properties": ({"type": "object", "properties": {f"p{n}": {} for n in range(3000)}}, REFUSED),
    "required of many": ({"type": "object", "required": [f"p{n}" for n in range(1500)]}, EITHER),
    "anyOf of many": ({"anyOf": [{"type": "object", "properties": {"a": {"const": n}}} for n in range(400)]}, EITHER),
    "oneOf of oneOf": (nested(12, {"type": "string"}, lambda inner: {"oneOf": [inner, inner]}), REFUSED),
    "allOf of allOf": (nested(8, {"type": "string"}, lambda inner: {"allOf": [inner, inner]}), EITHER),
    "reference to itself": ({"$ref": "#"}, EITHER),
    "references in a circle": (
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        EITHER,
    ),
    "reference to a file": ({"$ref": "file:///etc/passwd"}, EITHER),
    "reference to a place": ({"$ref": "http://127.0.0.1:1/x"}, EITHER),
    "reference to nothing": ({"$ref": "#/$defs/none"}, EITHER),
    "references that double": (
        {
            "$defs": {
                f"d{n}": {"type": "array", "prefixItems": [{"$ref": f"#/$defs/d{n + 1}"}] * 2, "items": False}
                for n in range(30)
            }
            | {"d30": {"type": "string"}},
            "$ref": "#/$defs/d0",
        },
        EITHER,
    ),
    "type of another kind": ({"type": "nothing"}, EITHER),
    "type as number": ({"type": 5}, EITHER),
    "a huge range": ({"type": "integer", "minimum": -(10**300), "maximum": 10**300}, EITHER),
    "a range of floats": ({"type": "number", "minimum": 1e-300, "maximum": 1e300}, EITHER),
    "multiples": ({"type": "integer", "multipleOf": 7}, EITHER),
    "unique": ({"type": "array", "uniqueItems": True}, EITHER),
    "format of another kind": ({"type": "string", "format": "regex"}, EITHER),
    "a million characters": ({"description": "d" * 500_000}, REFUSED),
    "a common schema": (
        {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 80}, "age": {"type": "integer"}},
            "required": ["name", "age"],
        },
        TAKEN,
    ),
    "a list of records": (
        {
            "type": "array",
            "maxItems": 10,
            "items": {"type": "object", "properties": {"day": {"type": "string", "pattern": "^\\d{4}-\\d{2}-\\d{2}$"}}},
        },
        TAKEN,
    ),
}

PATTERNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "900 plus and star": ("(" * 900 + "a+" + ")*" * 900, REFUSED),
    "9 stars": ("(" * 9 + "a" + ")*" * 9, REFUSED),
    "stars without brackets": ("(?:" * 20 + "a" + ")*" * 20, REFUSED),
    "stars of plus": ("((a+)+)+", REFUSED),
    "endless counts": ("((a{1,}){1,}){1,}", REFUSED),
    "counts of counts": ("(.{1,500}b){1,500}", REFUSED),
    "counts of counts of counts": ("((a{50}){50}){50}", REFUSED),
    "options": ("(a?){2000}", REFUSED),
    "200 stars": ("a*" * 200, REFUSED),
    "words and spaces": ("(\\w*\\s*){60}", REFUSED),
    "a million": ("a{1000000}", REFUSED),
    "counts below": ("a{5,2}", EITHER),
    "a bomb behind a letter": ("z(((a)*)*)*|[a-y]*", REFUSED),
    "options behind a letter": ("z(.?){2000}|[a-y]*", REFUSED),
    "2,000 alternatives": ("|".join(["a"] * 2000), REFUSED),
    "500 alternatives": ("|".join(["a"] * 500), EITHER),
    "not closed": ("(", REFUSED),
    "class not closed": ("[", REFUSED),
    "nothing to repeat": ("*", EITHER),
    "NUL": ("a\0", REFUSED),
    "look behind": ("(?<=a)b", EITHER),
    "named": ("(?P<x>a)", EITHER),
    "back reference": ("(a)\\1", EITHER),
    "large": ("a" * 500_000, REFUSED),
    "classes of many": ("[" + "".join(map(chr, range(0x4E00, 0x5200))) + "]{1,60}", EITHER),
    "everything": (".*", TAKEN),
    "a date": (r"\d{4}-\d{2}-\d{2}", TAKEN),
    "an address": (r"[a-z0-9._]+@[a-z0-9]+(\.[a-z]{2,8})+", TAKEN),
}

GRAMMARS: dict[str, tuple[str, tuple[int, ...]]] = {
    "50,000 rules": (chained(50_000, "{i} ::= {j}"), REFUSED),
    "200 rules": (chained(200, "{i} ::= {j}"), EITHER),
    "stars by rules": (chained(100, "{i} ::= {j}*"), EITHER),
    "doubling": (chained(60, "{i} ::= {j} {j}"), EITHER),
    "optional doubling": (chained(60, '{i} ::= {j} {j} | "a"'), EITHER),
    "ambiguous": ('root ::= root root | "a"', REFUSED),
    "ambiguous and empty": ('root ::= root root root | "a" | ""', REFUSED),
    "left recursion": ('root ::= root "a" | "a"', EITHER),
    "empty recursion": ("root ::= root", EITHER),
    "repetitions": ('root ::= (("a"{50}){50}){50}', REFUSED),
    "options": ("root ::= ([a-z]?){2000}", REFUSED),
    "500,000 parentheses": ("root ::= " + "(" * 8000 + '"a"' + ")" * 8000, REFUSED),
    "no root": ('a ::= "b"', REFUSED),
    "an absent rule": ("root ::= b", REFUSED),
    "lark": ("start: WORD\nWORD: /(a*)*/", REFUSED),
    "lark that imports": ("%import common.WORD\nstart: WORD", REFUSED),
    "empty": (" ", REFUSED),
    "text not closed": ('root ::= "a', REFUSED),
    "a common grammar": ('root ::= "yes" | "no" ", because " [a-z ]+', TAKEN),
}

TAG = {"begin": "<a>", "schema": {"type": "object"}, "end": "</a>"}
OTHERS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "20,000 choices": (outputs(choice=[f"c{number}" for number in range(20_000)]), REFUSED),
    "long choices": (outputs(choice=["a" * 100_000]), REFUSED),
    "no choices": (outputs(choice=[]), REFUSED),
    "an empty choice": (outputs(choice=[""]), REFUSED),
    "choices of numbers": (outputs(choice=[1, 2]), REFUSED),
    "choices as text": (outputs(choice="ab"), REFUSED),
    "choices with quotes": (outputs(choice=['"', "\\", "\n", "\0", "é"]), EITHER),
    "two choices": (outputs(choice=["yes", "no"]), TAKEN),
    "an object": ({"response_format": {"type": "json_object"}}, TAKEN),
    "text": ({"response_format": {"type": "text"}}, TAKEN),
    "both": ({"response_format": {"type": "json_object"}, **outputs(json_object=True)}, REFUSED),
    "json as text": (outputs(json=json.dumps({"type": "array", "minItems": 10**12})), REFUSED),
    "json as broken text": (outputs(json="{"), REFUSED),
    "json as deep text": (outputs(json="[" * 30_000), REFUSED),
    "json as number": (outputs(json=5), REFUSED),
    "json as list": (outputs(json=[1]), REFUSED),
    "whitespace": (outputs(json={}, whitespace_pattern="(" * 900 + ")" * 900), REFUSED),
    "outputs as list": ({"structured_outputs": [1]}, REFUSED),
    "outputs as text": ({"structured_outputs": "json"}, REFUSED),
    "tags": ({"response_format": {"type": "structural_tag", "structures": [TAG], "triggers": ["<a"]}}, EITHER),
    "tags without triggers": ({"response_format": {"type": "structural_tag", "structures": [TAG]}}, REFUSED),
    "tags with a bomb": (
        {
            "response_format": {
                "type": "structural_tag",
                "structures": [{**TAG, "schema": {"type": "array", "minItems": 10**12}}],
                "triggers": ["<a"],
            }
        },
        REFUSED,
    ),
    "tags with a pattern": (
        {"response_format": {"type": "structural_tag", "format": {"type": "regex", "pattern": "(((a)*)*)*"}}},
        REFUSED,
    ),
    "tags with a grammar": (
        {"response_format": {"type": "structural_tag", "format": {"type": "grammar", "grammar": "(" * 99}}},
        REFUSED,
    ),
    "tags that repeat": (
        {
            "response_format": {
                "type": "structural_tag",
                "format": {"type": "repeat", "min": 10**9, "max": 10**9, "content": {"type": "any_text"}},
            }
        },
        REFUSED,
    ),
    "tags in tags": (
        {
            "response_format": {
                "type": "structural_tag",
                "format": nested(60, {"type": "any_text"}, lambda inner: {"type": "star", "content": inner}),
            }
        },
        REFUSED,
    ),
    "stars in tags": (
        {
            "response_format": {
                "type": "structural_tag",
                "format": nested(
                    9, {"type": "const_string", "value": "a"}, lambda inner: {"type": "star", "content": inner}
                ),
            }
        },
        EITHER,
    ),
    "tags of another kind": ({"response_format": {"type": "structural_tag", "format": {"type": "x"}}}, REFUSED),
    "tags as text": (outputs(structural_tag="{"), REFUSED),
    "tools with schemas": (
        {
            "tools": [
                {"type": "function", "function": {"name": "f", "parameters": {"type": "array", "minItems": 10**12}}}
            ]
        },
        REFUSED,
    ),
}
