"""The REST operations as a table, from which both the routes and the OpenAPI document are made.

A handler that is not in a table is not reachable, so the document cannot leave one out.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from pacslite.core.access import Right
from pacslite.web.forms import schema_of
from pacslite.web.messages import Check, Handler, Reply, Route

ROOT = "/api/v1"
# Statuses of errors of every operation, and of those that take a form.
_OF_ANY = frozenset({400, 500, 503})
_OF_FORMS = frozenset({413, 415})


@dataclass(frozen=True, slots=True)
class Problem:
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: tuple[FieldProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """A field of a form that does not validate."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter."""

    name: str
    help: str
    schema: str = "string"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one resource; `path` is below `/api/v1`, with `{arguments}`.

    `answers` gives the type of the body for each status of success, None for no body or one that is not JSON; `right` is what a
    caller needs; `problems` are the statuses of errors beyond those of every operation and of every form. `also_at` lists other
    absolute paths with the same answer; `action` and `always` are those of the route. `body_type` is the media type of the form.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    answers: dict[int, type | None]
    right: Right
    form: type | None = None
    problems: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    also_at: tuple[str, ...] = ()
    action: str = ""
    always: tuple[tuple[str, str], ...] = ()
    body_type: str = "application/json"


def routes(operations: Iterable[Operation], check_of: Callable[[Operation], Check | None] = lambda _: None) -> list[Route]:
    """The routes that serve the operations, and what each checks first."""
    return [
        Route(
            one.method,
            re.sub(r"\{(\w+)\}", r"<\1>", path),
            one.handler,
            one.right,
            action=one.action,
            always=one.always,
            check=check_of(one),
        )
        for one in operations
        for path in (ROOT + one.path, *one.also_at)
    ]


def json_reply(value: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Reply:
    """A JSON answer from a dataclass, a dict or a list."""
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
    body = json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
    return Reply(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store"), *headers], body)


def document(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the operations."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {}
    _collect(Problem, schemas)
    for operation in operations:
        for kind in (operation.form, *operation.answers.values()):
            if kind is not None:
                _collect(kind, schemas)
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "pacslite", "version": version, "description": "Everything of pacslite that is not DICOMweb."},
        "servers": [{"url": ROOT}],
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.items()))},
    }


def _described(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {str(status): _answer(kind) for status, kind in operation.answers.items()},
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in re.findall(r"\{(\w+)\}", operation.path)
    ] + [{"name": p.name, "in": "query", "description": p.help, "schema": {"type": p.schema}} for p in operation.parameters]
    if parameters:
        described["parameters"] = parameters
    if operation.form is not None:
        described["requestBody"] = {"required": True, "content": {operation.body_type: {"schema": _reference(operation.form)}}}
    problem = {"content": {"application/problem+json": {"schema": _reference(Problem)}}}
    for status in sorted(_OF_ANY | (_OF_FORMS if operation.form is not None else set()) | set(operation.problems)):
        if str(status) not in described["responses"]:
            described["responses"][str(status)] = {"description": "Problem", **problem}
    return described


def _answer(kind: type | None) -> dict[str, Any]:
    if kind is None:
        return {"description": "Done"}
    if not dataclasses.is_dataclass(kind):
        return {"description": "A JSON object", "content": {"application/json": {"schema": {"type": "object"}}}}
    return {"description": (kind.__doc__ or "").strip(), "content": {"application/json": {"schema": _reference(kind)}}}


def _reference(kind: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _collect(kind: Any, schemas: dict[str, Any]) -> None:
    """Adds the schema of a dataclass and of those its fields name."""
    if not dataclasses.is_dataclass(kind) or not isinstance(kind, type) or kind.__name__ in schemas:
        return
    schemas[kind.__name__] = schema_of(kind)
    for hint in get_type_hints(kind).values():
        for inner in _inner_kinds(hint):
            _collect(inner, schemas)


def _inner_kinds(hint: Any) -> list[Any]:
    return [hint] + [kind for part in get_args(hint) for kind in _inner_kinds(part)]
