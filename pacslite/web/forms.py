"""JSON bodies as typed values, and their JSON Schema: a frozen dataclass is both the check and the documentation.

`parse(Form, request)` refuses unknown fields, wrong types and unknown enum values, and names every field at fault at once.
Fields carry `field(metadata=rule(...))` for what a type alone cannot say.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pacslite.errors import BadRequest, InvalidForm, UnsupportedContent
from pacslite.web.incoming import whole_body
from pacslite.web.messages import Request

T = TypeVar("T")

MAX_BODY_BYTES = 1024 * 1024
_HINTS: dict[type, dict[str, Any]] = {}
_JSON_NAMES: dict[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


@dataclasses.dataclass(frozen=True, slots=True)
class _Nothing:
    """The form of a call without one."""


def rule(help: str, **limits: Any) -> dict[str, Any]:
    """Metadata of a field: a sentence, and JSON Schema limits (minimum, maximum, minLength, maxLength, pattern, format)."""
    return {"help": help, "limits": limits}


def parse(form: type[T], request: Request) -> T:
    """The body of the request as a value of `form`; raises InvalidForm, UnsupportedContent, TooLarge."""
    content_type = (request.header("Content-Type") or "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise UnsupportedContent("The body must be application/json.", ("application/json",))
    try:
        given = json.loads(whole_body(request.environ, MAX_BODY_BYTES))
        text = json.dumps(given, ensure_ascii=False)
        text.encode()  # half a character (a lone surrogate) is no text, as values and names
    except (ValueError, RecursionError):
        raise BadRequest("The body is not JSON.") from None
    if isinstance(given, dict) and _holds_nul(text):  # PostgreSQL keeps none
        raise InvalidForm.of((name, "holds a NUL") for name, value in given.items() if _holds_nul(json.dumps({name: value})))
    return parse_value(form, given)


def _holds_nul(text: str) -> bool:
    return "\\u0000" in text.replace("\\\\", "")


def parse_empty(request: Request) -> None:
    """Looks at the body of a request that needs none: if it is JSON, it says nothing; raises InvalidForm, BadRequest, TooLarge."""
    content_type = (request.header("Content-Type") or "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        return
    body = whole_body(request.environ, MAX_BODY_BYTES).strip()
    try:
        given = json.loads(body) if body else None
    except (ValueError, RecursionError):
        raise BadRequest("The body is not JSON.") from None
    if given is not None:
        parse_value(_Nothing, given)


def hints_of(form: type[Any]) -> dict[str, Any]:
    """The kinds of the fields of a form, by name; read once, as reading them costs more than a form does."""
    found = _HINTS.get(form)
    if found is None:
        found = _HINTS[form] = get_type_hints(form)
    return found


def parse_value(form: type[T], given: Any) -> T:
    """A JSON value as a value of `form`; raises InvalidForm."""
    if not isinstance(given, dict):
        raise InvalidForm("The body is not a JSON object.")
    faults: list[tuple[str, str]] = []
    values: dict[str, Any] = {}
    hints = hints_of(form)
    fields = {f.name: f for f in dataclasses.fields(form)}  # type: ignore[arg-type]
    faults += [(name, "is not a field of this form") for name in given if name not in fields]
    for name, f in fields.items():
        if name in given:
            try:
                values[name] = _convert(hints[name], given[name], f.metadata.get("limits", {}))
            except ValueError as error:
                faults.append((name, str(error)))
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            faults.append((name, "is missing"))
    if faults:
        raise InvalidForm.of(faults)
    return form(**values)


def _convert(kind: Any, given: Any, limits: dict[str, Any]) -> Any:
    """The typed value; raises ValueError with what is wrong."""
    if get_origin(kind) in (Union, types.UnionType):
        return None if given is None else _convert(_without_none(kind), given, limits)
    if get_origin(kind) is Literal:
        if given not in get_args(kind):
            raise ValueError(f"is none of {', '.join(map(str, get_args(kind)))}")
        return given
    if get_origin(kind) is tuple:
        if not isinstance(given, list):
            raise ValueError("is not a list")
        return tuple(_convert(get_args(kind)[0], item, limits) for item in given)
    if get_origin(kind) is dict:
        if not isinstance(given, dict):
            raise ValueError("is not an object")
        return {name: _convert(get_args(kind)[1], value, limits) for name, value in given.items()}
    if dataclasses.is_dataclass(kind):
        try:
            return parse_value(kind, given)  # type: ignore[arg-type]
        except InvalidForm as error:
            raise ValueError(str(error)) from None
    if (type(given) is not kind and not (kind is float and type(given) is int)) or given != given:  # NaN is none
        raise ValueError(f"is no {_JSON_NAMES[kind]}")
    _check_limits(given, limits)
    return given


def _check_limits(given: Any, limits: dict[str, Any]) -> None:
    if "minimum" in limits and given < limits["minimum"]:
        raise ValueError(f"is below {limits['minimum']}")
    if "maximum" in limits and given > limits["maximum"]:
        raise ValueError(f"is above {limits['maximum']}")
    if "minLength" in limits and len(given) < limits["minLength"]:
        raise ValueError("is empty" if limits["minLength"] == 1 else f"is shorter than {limits['minLength']}")
    if "maxLength" in limits and len(given) > limits["maxLength"]:
        raise ValueError(f"is longer than {limits['maxLength']}")
    if "pattern" in limits and not re.search(limits["pattern"], given):
        raise ValueError("is no date (YYYY-MM-DD)" if limits.get("format") == "date" else f"does not match {limits['pattern']}")


def _without_none(kind: Any) -> Any:
    return next(part for part in get_args(kind) if part is not type(None))


def schema_of(form: type[Any]) -> dict[str, Any]:
    """The JSON Schema (2020-12, as OpenAPI 3.1 uses it) of a dataclass."""
    hints = get_type_hints(form)
    properties: dict[str, Any] = {}
    required = []
    for f in dataclasses.fields(form):
        schema = _schema_of_kind(hints[f.name])
        target = schema["items"] if "items" in schema else schema.get("additionalProperties", schema)
        target.update(f.metadata.get("limits", {}))
        if "help" in f.metadata:
            schema["description"] = f.metadata["help"]
        properties[f.name] = schema
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            required.append(f.name)
        elif isinstance(f.default, (str, int, bool, tuple)):
            schema["default"] = list(f.default) if isinstance(f.default, tuple) else f.default
    described = {"type": "object", "description": (form.__doc__ or "").strip(), "properties": properties, "additionalProperties": False}
    return described | ({"required": required} if required else {})


def _schema_of_kind(kind: Any) -> dict[str, Any]:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        inner = _schema_of_kind(_without_none(kind))
        return {"anyOf": [inner, {"type": "null"}]} if "$ref" in inner or "type" not in inner else inner | {"type": [inner["type"], "null"]}
    if origin is Literal:
        return {"type": "string", "enum": list(get_args(kind))}
    if origin is tuple:
        return {"type": "array", "items": _schema_of_kind(get_args(kind)[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of_kind(get_args(kind)[1])}
    if kind is Any:
        return {}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"type": _JSON_NAMES[kind]}
