"""What the API page shows, read from the application's own OpenAPI document: dialects, routes, fields, errors.

The document says what is true of this server; :mod:`rewardlab.serving.docs_examples` adds a request of each dialect
with what is answered to it. No HTML here, and no request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewardlab.serving.docs_examples import EXAMPLES, PARAMETERS, RENDERED

_Schema = Mapping[str, Any]

_RENDERED = json.dumps(RENDERED, ensure_ascii=False)
_OF_NO_ROUTE = {404: "There is no such route.", 405: "The route is there, but not for this method."}

_WIDTH = 58  # characters of a line of JSON: two blocks stand side by side


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a body, or a parameter.

    Attributes:
        name: Its name.
        type: In words.
        is_required: Whether it must be there.
        remark: What it is for, its limits, its default.
    """

    name: str
    type: str
    is_required: bool
    remark: str


@dataclass(frozen=True, slots=True)
class Body:
    """One kind of request body.

    Attributes:
        purpose: What it holds.
        fields: Its fields.
    """

    purpose: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A request and its answer.

    Attributes:
        method: ``"GET"`` or ``"POST"``.
        path: The path, with its query.
        body: The request's body as JSON; empty where there is none.
        answer: What is answered; empty where nothing is shown.
        needs_key: Whether a guarded server asks for its key.
        field: The field by which this body differs from those of the route's other examples; empty of one alone.
    """

    method: str
    path: str
    body: str
    answer: str
    needs_key: bool
    field: str

    @property
    def around_rendered(self) -> list[str]:
        """The body in the parts that lie around the rendered text, which the page changes for the served model's."""
        return self.body.split(_RENDERED)

    @property
    def rendered(self) -> str:
        """The rendered text as it stands in the body; empty where there is none."""
        return _RENDERED if _RENDERED in self.body else ""


@dataclass(frozen=True, slots=True)
class Route:
    """A route, with others that do the same.

    Attributes:
        anchor: Its place in the page.
        names: ``"POST /score"``, ``"POST /v1/score"``.
        purpose: What it is for.
        bodies: The kinds of request bodies that it takes in this dialect.
        parameters: Parameters of its query.
        examples: Requests with their answers.
        statuses: Status of each documented error, in order.
    """

    anchor: str
    names: tuple[str, ...]
    purpose: str
    bodies: tuple[Body, ...]
    parameters: tuple[Field, ...]
    examples: tuple[Example, ...]
    statuses: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """The routes of one dialect.

    Attributes:
        anchor: Its place in the page.
        name: The dialect's name.
        scale: What its numbers are, and what else a client must know.
        routes: Its routes.
    """

    anchor: str
    name: str
    scale: str
    routes: tuple[Route, ...]


def sections_of(document: Mapping[str, Any]) -> list[Section]:
    """The dialects of an OpenAPI document, in its order.

    Args:
        document: The document; each operation is tagged with the dialects that it speaks.
    """
    return [
        Section(_anchor(tag["name"]), tag["name"], tag.get("description", ""), _routes(document, tag["name"]))
        for tag in document.get("tags", [])
    ]


def errors_of(document: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Status and meaning of every error that any route documents, each once, and of those that no route gives."""
    found = _OF_NO_ROUTE | {
        int(status): response.get("description", "")
        for _, _, operation in _operations(document)
        for status, response in operation["responses"].items()
        if int(status) >= 400
    }
    return sorted(found.items())


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield method.upper(), path, operation


def _routes(document: Mapping[str, Any], tag: str) -> tuple[Route, ...]:
    """The routes of a dialect; those that take the same and do the same are one."""
    alike: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for method, path, operation in _operations(document):
        if tag in operation.get("tags", ()):
            same = [operation.get(key) for key in ("description", "requestBody", "parameters")]
            alike.setdefault(json.dumps(same, sort_keys=True), []).append((method, path, operation))
    routes = []
    for group in alike.values():
        group.sort(key=lambda one: (one[1].count("/"), one[1], one[0]))
        names = tuple(f"{method} {path}" for method, path, _ in group)
        method, path, operation = group[0]
        known = EXAMPLES.get((tag, path), ())
        is_shared = len(operation["tags"]) > 1
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        query = PARAMETERS.get(path, "")
        needs_key = path != "/health"
        examples = [
            Example(method, path + query, _json(body), _json(answer), needs_key, _own_field(body, known))
            for body, answer in known
        ]
        routes.append(
            Route(
                anchor=_anchor(f"{tag} {names[0]}"),
                names=names,
                purpose=operation.get("description") or operation.get("summary", ""),
                bodies=_bodies(document, content.get("schema"), [body for body, _ in known if is_shared]),
                parameters=tuple(_parameter(document, one) for one in operation.get("parameters", ())),
                examples=tuple(examples) or (Example(method, path + query, "", "", needs_key, ""),),
                statuses=tuple(sorted(int(status) for status in operation["responses"] if int(status) >= 400)),
            )
        )
    shown = [path for of_tag, path in EXAMPLES if of_tag == tag]
    routes.sort(
        key=lambda route: next((n for n, path in enumerate(shown) if route.names[0].endswith(f" {path}")), len(shown))
    )
    return tuple(routes)


def _own_field(body: Any, known: Sequence[tuple[Any, Any]]) -> str:
    """The first field that this body alone of a route's examples has; empty where there is only one."""
    others = {name for other, _ in known if other is not body for name in other}
    return next((name for name in body if name not in others), "") if others else ""


def _bodies(document: Mapping[str, Any], schema: _Schema | None, examples: Sequence[Any]) -> tuple[Body, ...]:
    """The kinds of bodies, or those of them that the examples are of."""
    if schema is None:
        return ()
    kinds = [_resolved(document, one) for one in schema.get("oneOf", schema.get("anyOf", [schema]))]
    kinds = [one for one in kinds if one.get("type") == "object"]
    meant = [
        one
        for one in kinds
        if any(set(one.get("required", ())) <= set(body) <= set(one["properties"]) for body in examples)
    ]
    return tuple(Body(one.get("description", ""), tuple(_fields(document, one))) for one in meant or kinds)


def _fields(document: Mapping[str, Any], schema: _Schema) -> Iterator[Field]:
    required = schema.get("required", ())
    for name, value in schema.get("properties", {}).items():
        yield Field(name, _type(document, value), name in required, _remark(value))


def _parameter(document: Mapping[str, Any], parameter: Mapping[str, Any]) -> Field:
    schema = _resolved(document, parameter.get("schema", {}))
    remark = _remark({**schema, "description": parameter.get("description", "")})
    return Field(parameter["name"], _type(document, schema), parameter.get("required", False), remark)


def _type(document: Mapping[str, Any], schema: _Schema) -> str:
    value = _resolved(document, schema)
    if "const" in value:
        return json.dumps(value["const"])
    if "enum" in value:
        return " or ".join(map(json.dumps, value["enum"]))
    if kinds := _kinds(value):
        return " or ".join(dict.fromkeys(_type(document, one) for one in kinds))
    if value.get("type") == "array":
        inside = _type(document, value.get("items", {}))
        return f"list of ({inside})" if " or " in inside else f"list of {_many(inside)}"
    if "properties" in value:
        return f"{{{', '.join(value['properties'])}}}"
    return str(value.get("type", "anything"))


def _many(words: str) -> str:
    first, _, rest = words.partition(" ")
    return words if first == "anything" or words.startswith("{") else " ".join(filter(None, (f"{first}s", rest)))


def _kinds(schema: _Schema) -> list[_Schema]:
    """What a value may be beside null, which is the same as leaving it out."""
    return [one for one in schema.get("oneOf", schema.get("anyOf", ())) if one.get("type") != "null"]


def _remark(schema: _Schema) -> str:
    parts = [schema.get("description", "")]
    limits = {**schema, **{key: value for one in _kinds(schema) for key, value in one.items()}}
    for key, words in (("minimum", "At least"), ("maximum", "At most"), ("exclusiveMaximum", "Below")):
        if key in limits:
            parts.append(f"{words} {int(limits[key]) if limits[key] == int(limits[key]) else limits[key]}.")
    if (default := schema.get("default")) is not None:
        parts.append(f"By default {json.dumps(default)}.")
    return " ".join(filter(None, parts))


def _resolved(document: Mapping[str, Any], schema: _Schema) -> _Schema:
    """What a reference stands for, with what is said where it stands."""
    if "$ref" not in schema:
        return schema
    found = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return {**found, **{key: value for key, value in schema.items() if key != "$ref"}}


def _json(value: Any) -> str:
    """As a person would write it: what is short on one line."""
    if value is None:
        return ""
    return _indented(value, "")


def _indented(value: Any, before: str) -> str:
    flat = json.dumps(value, ensure_ascii=False)
    if len(before) + len(flat) <= _WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    deeper = f"{before}  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_indented(inner, deeper)}" for key, inner in value.items()]
        return f"{{\n{deeper}" + f",\n{deeper}".join(parts) + f"\n{before}}}"
    return f"[\n{deeper}" + f",\n{deeper}".join(_indented(inner, deeper) for inner in value) + f"\n{before}]"


def _anchor(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
