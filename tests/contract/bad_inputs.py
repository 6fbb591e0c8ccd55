"""The table of bad inputs: what is sent, and the status, code, param and word that must come back.

`param` and `code` are compared exactly; `word` must be in the message, so that the message names
the trouble.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

BASE = "tiny-base"
CHAT = "/v1/chat/completions"
JOBS = "/v1/fine_tuning/jobs"
FILES = "/v1/files"
KEYS = "/v1/afina/keys"
FORM = "multipart/form-data; boundary=cut"


@dataclass(frozen=True)
class Case:
    """One bad request and its clear error."""

    name: str
    method: str
    path: str
    status: int
    code: str | None
    param: str | None
    word: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


def chat(name: str, code: str, param: str | None, word: str, **changes: Any) -> Case:
    """A chat request with some fields changed; `...` takes a field out."""
    body: dict[str, Any] = {"model": BASE, "messages": [{"role": "user", "content": "Hello"}]}
    body |= changes
    body = {key: value for key, value in body.items() if value is not ...}
    status = 404 if code == "model_not_found" else 400
    return Case(f"chat: {name}", "POST", CHAT, status, code, param, word, json.dumps(body).encode())


def message(name: str, code: str, param: str, word: str, said: Any) -> Case:
    """A chat request with one message that is wrong."""
    return chat(f"message {name}", code, param, word, messages=[said])


def job(
    name: str, code: str | None, param: str | None, word: str, status: int = 400, **changes: Any
) -> Case:
    """A job request with some fields changed; `...` takes a field out."""
    body: dict[str, Any] = {"model": BASE, "training_file": "file-none"} | changes
    body = {key: value for key, value in body.items() if value is not ...}
    return Case(f"job: {name}", "POST", JOBS, status, code, param, word, json.dumps(body).encode())


def supervised(name: str, code: str, field_name: str, word: str, value: Any) -> Case:
    """A job request with one wrong hyperparameter."""
    method = {"type": "supervised", "supervised": {"hyperparameters": {field_name: value}}}
    param = f"method.supervised.hyperparameters.{field_name}"
    return job(f"{field_name} {name}", code, param, word, method=method)


def raw(name: str, path: str, body: bytes, word: str, **more: Any) -> Case:
    """A body that is no JSON object."""
    told: dict[str, Any] = {"status": 400, "code": "invalid_json", "param": None} | more
    return Case(f"{path}: {name}", "POST", path, word=word, body=body, **told)


def get(path: str, status: int, code: str | None, param: str | None, word: str) -> Case:
    """A GET that is refused."""
    return Case(f"GET {path[:80]}", "GET", path, status, code, param, word)


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    """One part of a form."""
    shown = "" if filename is None else f'; filename="{filename}"'
    head = f'--cut\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n\r\n'
    return head.encode() + value + b"\r\n"


ROW = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
PURPOSE = part("purpose", b"fine-tune")
END = b"--cut--\r\n"


def form(
    name: str, code: str | None, param: str | None, word: str, body: bytes, status: int = 400
) -> Case:
    """A form that is refused."""
    headers = {"content-type": FORM}
    return Case(f"upload: {name}", "POST", FILES, status, code, param, word, body, headers)


def poison(name: str, content: bytes, word: str, code: str = "invalid_file_format") -> Case:
    """A training file that is refused at once."""
    body = PURPOSE + part("file", content, "train.jsonl") + END
    return form(f"poison {name}", code, "file", word, body)


def cases() -> list[Case]:
    """The whole table."""
    groups = (
        _bodies,
        _chat_fields,
        _chat_not_offered,
        _chat_tools,
        _chat_formats,
        _messages,
        _job_fields,
        _hyperparameters,
        _forms,
        _poison,
        _ids,
        _queries,
        _urls,
        _keys,
        _headers,
    )
    return [case for group in groups for case in group()]


def _bodies() -> Iterator[Case]:
    for path in (CHAT, JOBS, KEYS):
        yield raw("cut off", path, b'{"model": "x"', "line 1")
        yield raw("no JSON", path, b"model=x", "JSON")
        yield raw("one quote", path, b"{'model': 1}", "line 1, column 2")
        yield raw("NaN", path, b'{"seed": NaN}', "NaN")
        yield raw("infinity", path, b'{"temperature": -Infinity}', "Infinity")
        yield raw("1e400", path, b'{"temperature": 1e400}', "range")
        yield raw("5,000 digits", path, b'{"seed": ' + b"9" * 5000 + b"}", "JSON")
        yield raw("not UTF-8", path, b'{"model": "\xff\xfe"}', "UTF-8")
        yield raw("UTF-16", path, '{"model": 1}'.encode("utf-16"), "JSON")
        yield raw("half a surrogate pair", path, b'{"model": "\\ud800"}', "surrogate")
        yield raw("100,000 deep", path, b'{"a":' + b"[" * 100_000, "deep")
        yield raw("100,000 deep, whole", path, b"[" * 100_000 + b"]" * 100_000, "deep")
        twice = {"code": "duplicate_parameter", "param": "a[0].b"}
        yield raw("a key twice", path, b'{"a": [{"b": 1, "b": 1}]}', "more than once", **twice)
        yield raw("text behind it", path, b"{} {}", "line 1, column 4")
        yield raw("a control character", path, b'{"model": "a\x00b"}', "JSON")
        missing = "missing_required_parameter"
        yield raw("empty", path, b"", "no body", code=missing)
        yield raw("white space", path, b" \n ", "no body", code=missing)
        for name, body in (("a list", b"[]"), ("a string", b'"x"'), ("null", b"null")):
            yield raw(name, path, body, "object", code="invalid_type")
    too_large = b'{"model": "' + b"x" * 2_200_000 + b'"}'
    for path in (CHAT, JOBS):
        name = f"{path}: too large"
        yield Case(name, "POST", path, 413, "request_too_large", None, "larger", too_large)


def _chat_fields() -> Iterator[Case]:
    yield chat("no model", "missing_required_parameter", "model", "model", model=...)
    yield chat("no messages", "missing_required_parameter", "messages", "messages", messages=...)
    yield chat("unknown field", "unknown_parameter", "temprature", "temprature", temprature=1)
    yield chat("a long unknown field", "unknown_parameter", "y" * 64, "y" * 64, **{"y" * 5000: 1})
    yield chat("unknown model", "model_not_found", "model", "gpt-9", model="gpt-9")
    yield chat("model of traversal", "model_not_found", "model", "..", model="../../etc/passwd")
    yield chat(
        "an encoder", "model_not_found", "model", "embeddings", model="multilingual-e5-small"
    )
    yield chat("empty model", "string_below_min_length", "model", "model", model="")
    yield chat("long model", "string_above_max_length", "model", "512", model="m" * 600)
    value: Any
    for name, value in (("number", 1), ("null", None), ("list", ["x"])):
        yield chat(f"model a {name}", "invalid_type", "model", "string", model=value)
    for name, value in (("string", "hi"), ("object", {"role": "user"}), ("null", None)):
        yield chat(f"messages a {name}", "invalid_type", "messages", "array", messages=value)
    yield chat("no message", "empty_array", "messages", "empty", messages=[])
    yield from _chat_ranges()
    yield chat("stream a string", "invalid_type", "stream", "boolean", stream="true")
    yield chat("stream a number", "invalid_type", "stream", "boolean", stream=1)
    options = {"include_usage": True}
    yield chat("options only", "invalid_value", "stream_options", "stream", stream_options=options)
    odd: dict[str, Any] = {"stream": True, "stream_options": {"usage": True}}
    yield chat("odd option", "unknown_parameter", "stream_options.usage", "usage", **odd)
    yield chat("stop a number", "invalid_type", "stop", "string", stop=7)
    yield chat("empty stop", "string_below_min_length", "stop", "stop", stop="")
    yield chat("no stop", "empty_array", "stop", "empty", stop=[])
    yield chat("5 stops", "array_above_max_length", "stop", "4", stop=list("abcde"))
    yield chat("a stop that is none", "invalid_type", "stop[1]", "string", stop=["a", None])
    yield chat("top_logprobs only", "invalid_value", "top_logprobs", "logprobs", top_logprobs=2)
    both = {"max_tokens": 5, "max_completion_tokens": 5}
    yield chat("two limits", "invalid_value", "max_tokens", "max_completion_tokens", **both)
    torn = [{"role": "assistant", "content": "yes", "refusal": "no"}]
    yield chat("both said", "invalid_value", "messages[0].refusal", "one or", messages=torn)
    long = [{"role": "user", "content": "word " * 3000}]
    yield chat("a long chat", "context_length_exceeded", "messages", "512", messages=long)
    yield chat("long limit", "context_length_exceeded", "messages", "512", max_tokens=100_000)


def _chat_ranges() -> Iterator[Case]:
    for name, low, high in (
        ("temperature", -0.1, 2.01),
        ("top_p", -0.5, 1.5),
        ("frequency_penalty", -2.5, 2.5),
        ("presence_penalty", -3, 3),
    ):
        yield chat(f"{name} low", "decimal_below_min_value", name, ">=", **{name: low})
        yield chat(f"{name} high", "decimal_above_max_value", name, "<=", **{name: high})
        yield chat(f"{name} text", "invalid_type", name, "number", **{name: "1"})
        yield chat(f"{name} true", "invalid_type", name, "boolean", **{name: True})
    for name, low_, high_ in (
        ("n", 0, 129),
        ("max_tokens", 0, 2**40),
        ("max_completion_tokens", -1, 10**30),
        ("top_logprobs", -1, 21),
        ("seed", -(2**63) - 1, 2**63),
    ):
        yield chat(f"{name} low", "integer_below_min_value", name, ">=", **{name: low_})
        yield chat(f"{name} high", "integer_above_max_value", name, "<=", **{name: high_})
        yield chat(f"{name} decimal", "invalid_type", name, "integer", **{name: 1.5})
        yield chat(f"{name} text", "invalid_type", name, "integer", **{name: "1"})


def _chat_not_offered() -> Iterator[Case]:
    for name, value in {
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "wav"},
        "prediction": {"type": "content", "content": "x"},
        "reasoning_effort": "high",
        "verbosity": "low",
        "web_search_options": {},
        "moderation": {"model": "omni-moderation-latest"},
        "prompt_cache_options": {"mode": "explicit"},
        "prompt_cache_retention": "24h",
        "service_tier": "priority",
    }.items():
        yield chat(f"{name} not offered", "unsupported_parameter", name, name, **{name: value})
    alone: tuple[tuple[str, object, str], ...] = (
        ("tool_choice", "required", "tools"),
        ("tool_choice", "auto", "tools"),
        ("parallel_tool_calls", False, "tools"),
        ("function_call", {"name": "f"}, "functions"),
        ("function_call", "auto", "functions"),
        ("metadata", {"a": "b"}, "store"),
    )
    for name, worth, other in alone:
        yield chat(f"{name} {worth} alone", "invalid_value", name, other, **{name: worth})


_SCHEMA = "response_format.json_schema"


def _chat_tools() -> Iterator[Case]:
    tool = {"type": "function", "function": {"name": "f"}}
    name = "tools[0].function.name"
    for odd in ("", "a b", "é", "x" * 65):
        yield chat(
            f"tool named {odd[:4]!r}",
            "invalid_value",
            name,
            "not allowed",
            tools=[{"type": "function", "function": {"name": odd}}],
        )
    yield chat("tools a string", "invalid_type", "tools", "array", tools="f")
    yield chat("a tool a string", "invalid_type", "tools[0]", "object", tools=["f"])
    yield chat("129 tools", "array_above_max_length", "tools", "128", tools=[tool] * 129)
    yield chat("a tool twice", "invalid_value", "tools[1].function.name", "same", tools=[tool] * 2)
    custom = {"type": "custom", "custom": {"name": "x"}}
    yield chat("custom", "unsupported_parameter", "tools[0].type", "functions", tools=[custom])
    both = {"tools": [tool], "functions": [{"name": "f"}]}
    yield chat("tools and functions", "invalid_value", "functions", "tools", **both)
    for choice in ("always", 7, {"type": "function", "function": {"name": "other"}}):
        odd_choice = {"tools": [tool], "tool_choice": choice}
        yield chat(f"choice {choice}", "invalid_value", "tool_choice", "ool", **odd_choice)
    older = {"functions": [{"name": "f"}], "function_call": {"name": "other"}}
    yield chat("another function", "invalid_value", "function_call", "functions", **older)
    function = {"name": "f", "parameters": {"type": "wizard"}}
    yield chat(
        "parameters of no type",
        "invalid_json_schema",
        "tools[0].function.parameters",
        "wizard",
        tools=[{"type": "function", "function": function}],
    )
    for key in ("x", "-1", "1.5", "007"):
        yield chat(f"bias {key}", "invalid_value", "logit_bias", "ids", logit_bias={key: 1})
    high = {"logit_bias": {"5": 101}}
    yield chat("bias 101", "decimal_above_max_value", "logit_bias.5", "100", **high)


def _chat_formats() -> Iterator[Case]:
    for given, code, param, needle in (
        ({"type": "json_schema"}, "missing_required_parameter", _SCHEMA, "schema"),
        (
            {"type": "json_schema", "json_schema": {"name": "x"}},
            "missing_required_parameter",
            f"{_SCHEMA}.schema",
            "schema",
        ),
        (
            {"type": "json_object", "json_schema": {"name": "x"}},
            "invalid_value",
            _SCHEMA,
            "json_schema",
        ),
        (
            {
                "type": "json_schema",
                "json_schema": {
                    "name": "x",
                    "strict": True,
                    "schema": {"type": "array", "uniqueItems": True},
                },
            },
            "invalid_json_schema",
            "response_format",
            "uniqueItems",
        ),
        (
            {
                "type": "json_schema",
                "json_schema": {
                    "name": "x",
                    "strict": True,
                    "schema": {"type": "integer", "multipleOf": 100_000_007},
                },
            },
            "invalid_json_schema",
            "response_format",
            "multipleOf",
        ),
    ):
        yield chat(f"format {param} {code} {needle}", code, param, needle, response_format=given)
    yield chat(
        "odd format",
        "invalid_value",
        "response_format.type",
        "json",
        response_format={"type": "xml"},
    )
    yield chat("odd tier", "invalid_value", "service_tier", "supported", service_tier="gold")
    yield chat(
        "17 pairs",
        "object_above_max_properties",
        "metadata",
        "16",
        metadata={str(i): "" for i in range(17)},
    )
    yield chat(
        "a long id",
        "string_above_max_length",
        "safety_identifier",
        "64",
        safety_identifier="s" * 65,
    )
    yield chat("user a number", "invalid_type", "user", "string", user=7)


def _messages() -> Iterator[Case]:
    where = "messages[0]"
    yield message("a string", "invalid_type", where, "object", "Hello")
    yield message("null", "invalid_type", where, "object", None)
    yield message(
        "without role", "missing_required_parameter", f"{where}.role", "role", {"content": "x"}
    )
    yield message(
        "of odd role",
        "invalid_value",
        f"{where}.role",
        "assistant",
        {"role": "judge", "content": "x"},
    )
    yield message(
        "without content",
        "missing_required_parameter",
        f"{where}.content",
        "content",
        {"role": "user"},
    )
    yield message(
        "null content",
        "invalid_type",
        f"{where}.content",
        "string",
        {"role": "user", "content": None},
    )
    yield message(
        "number", "invalid_type", f"{where}.content", "string", {"role": "user", "content": 5}
    )
    yield message(
        "no parts", "empty_array", f"{where}.content", "empty", {"role": "user", "content": []}
    )
    yield message(
        "with weight",
        "unknown_parameter",
        f"{where}.weight",
        "weight",
        {"role": "assistant", "content": "x", "weight": 1},
    )
    yield message(
        "with a name",
        "unsupported_parameter",
        f"{where}.name",
        "name",
        {"role": "user", "content": "x", "name": "Ann"},
    )
    yield message(
        "silent", "missing_required_parameter", f"{where}.content", "content", {"role": "assistant"}
    )
    yield message(
        "tool without id",
        "missing_required_parameter",
        f"{where}.tool_call_id",
        "tool_call_id",
        {"role": "tool", "content": "x"},
    )
    yield message(
        "with audio",
        "unsupported_parameter",
        f"{where}.audio",
        "audio",
        {"role": "assistant", "content": "x", "audio": {"id": "a"}},
    )
    custom = {
        "role": "assistant",
        "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": ""}}],
    }
    yield message(
        "custom call", "unsupported_parameter", f"{where}.tool_calls[0].type", "function", custom
    )
    inside = f"{where}.content[0]"
    for name, code, param, word, item in (
        (
            "image",
            "unsupported_parameter",
            f"{inside}.type",
            "images",
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        ),
        (
            "sound",
            "unsupported_parameter",
            f"{inside}.type",
            "sound",
            {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        ),
        (
            "file",
            "unsupported_parameter",
            f"{inside}.type",
            "files",
            {"type": "file", "file": {"file_id": "f"}},
        ),
        ("odd kind", "invalid_value", f"{inside}.type", "text", {"type": "video"}),
        ("no kind", "missing_required_parameter", f"{inside}.type", "type", {"text": "x"}),
        ("no text", "missing_required_parameter", f"{inside}.text", "text", {"type": "text"}),
        ("number", "invalid_type", f"{inside}.text", "string", {"type": "text", "text": 1}),
        ("string", "invalid_type", inside, "object", "Hello"),
        (
            "extra",
            "unknown_parameter",
            f"{inside}.colour",
            "colour",
            {"type": "text", "text": "x", "colour": 1},
        ),
        (
            "mark",
            "unsupported_parameter",
            f"{inside}.prompt_cache_breakpoint",
            "marks",
            {"type": "text", "text": "x", "prompt_cache_breakpoint": {}},
        ),
    ):
        yield message(f"part {name}", code, param, word, {"role": "user", "content": [item]})


def _job_fields() -> Iterator[Case]:
    yield job("no model", "missing_required_parameter", "model", "model", model=...)
    yield job(
        "no file", "missing_required_parameter", "training_file", "training_file", training_file=...
    )
    yield job("unknown field", "unknown_parameter", "epochs", "epochs", epochs=3)
    yield job("odd model", "model_not_available", "model", "tiny-base", model="gpt-9")
    yield job("model a number", "invalid_type", "model", "string", model=4)
    yield job("file null", "invalid_type", "training_file", "string", training_file=None)
    yield job("file a list", "invalid_type", "training_file", "string", training_file=["file-a"])
    yield job(
        "empty file id",
        "string_below_min_length",
        "training_file",
        "training_file",
        training_file="",
    )
    yield job(
        "long file id", "string_above_max_length", "training_file", "512", training_file="f" * 600
    )
    yield job("no such file", None, "training_file", "file-none", status=404)
    yield job(
        "a path as file",
        None,
        "training_file",
        "..",
        training_file="../../../etc/passwd",
        status=404,
    )
    yield job("suffix empty", "string_below_min_length", "suffix", "suffix", suffix="")
    yield job("suffix long", "string_above_max_length", "suffix", "64", suffix="s" * 65)
    yield job("suffix of slashes", "invalid_value", "suffix", "a-z", suffix="/../")
    yield job("suffix of no text", "invalid_value", "suffix", "a-z", suffix="a\x00b")
    yield job("suffix a number", "invalid_type", "suffix", "string", suffix=5)
    yield job("seed negative", "integer_below_min_value", "seed", ">= 0", seed=-1)
    yield job("seed large", "integer_above_max_value", "seed", "2147483647", seed=2**31)
    yield job("seed of 400 digits", "integer_above_max_value", "seed", "2147483647", seed=10**400)
    yield job("seed decimal", "invalid_type", "seed", "integer", seed=1.5)
    yield job("seed text", "invalid_type", "seed", "integer", seed="7")
    yield job("seed true", "invalid_type", "seed", "boolean", seed=True)
    yield job("validation a number", "invalid_type", "validation_file", "string", validation_file=1)
    wandb = [{"type": "wandb", "wandb": {"project": "p"}}]
    yield job(
        "no key for wandb",
        "integration_not_configured",
        "integrations[0]",
        "integration",
        integrations=wandb,
    )
    yield job(
        "6 integrations", "array_above_max_length", "integrations", "5", integrations=wandb * 6
    )
    yield job("metadata a list", "invalid_type", "metadata", "object", metadata=[])
    yield job("metadata a number", "invalid_type", "metadata.a", "string", metadata={"a": 1})
    yield job(
        "17 pairs",
        "object_above_max_properties",
        "metadata",
        "16",
        metadata={str(i): "" for i in range(17)},
    )
    yield job(
        "long value", "string_above_max_length", "metadata.a", "512", metadata={"a": "v" * 513}
    )
    yield job(
        "long key", "string_above_max_length", "metadata", "length 65", metadata={"k" * 65: ""}
    )
    yield job("NUL in a value", "invalid_value", "metadata.a", "not allowed", metadata={"a": "\0"})
    yield job("method a string", "invalid_type", "method", "object", method="supervised")
    yield job("method of no type", "missing_required_parameter", "method.type", "type", method={})
    yield job("odd method", "invalid_value", "method.type", "supervised", method={"type": "magic"})
    beta = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 2.5}}}
    yield job(
        "beta", "decimal_above_max_value", "method.dpo.hyperparameters.beta", "2", method=beta
    )
    yield job(
        "reinforcement",
        "unsupported_parameter",
        "method.type",
        "reinforcement",
        method={"type": "reinforcement", "reinforcement": {"grader": {}}},
    )
    two = {"type": "supervised", "dpo": {"hyperparameters": {"beta": 0.1}}}
    yield job("dpo beside", "invalid_value", "method.dpo", "dpo", method=two)
    own = "afina.tuning"
    yield job(
        "odd extension", "unknown_parameter", "afina.tunning", "tunning", afina={"tunning": 1}
    )
    yield job(
        "odd key in tuning",
        "unknown_parameter",
        f"{own}.rnak",
        "rnak",
        afina={"tuning": {"rnak": 8}},
    )
    yield job(
        "odd kind", "invalid_value", f"{own}.kind", "lora", afina={"tuning": {"kind": "magic"}}
    )
    yield job(
        "rank 0", "integer_below_min_value", f"{own}.rank", "1", afina={"tuning": {"rank": 0}}
    )
    yield job(
        "layers of lora", "invalid_value", f"{own}.layers", "lora", afina={"tuning": {"layers": 4}}
    )
    yield job(
        "odd modules",
        "invalid_value",
        f"{own}.target_modules",
        "w_proj",
        afina={"tuning": {"target_modules": ["w_proj"]}},
    )
    yield job(
        "stopping without validation",
        "invalid_value",
        "afina.early_stopping",
        "validation_file",
        afina={"early_stopping": {"patience": 1}},
    )
    yield job(
        "odd gate", "invalid_value", "afina.gate.policy", "hold", afina={"gate": {"policy": "x"}}
    )
    yield job(
        "odd key in method",
        "unknown_parameter",
        "method.sft",
        "sft",
        method={"type": "supervised", "sft": {}},
    )
    both: dict[str, Any] = {"hyperparameters": {"n_epochs": 1}, "method": {"type": "supervised"}}
    yield job("two places", "invalid_value", "hyperparameters", "method", **both)
    yield job("old form a list", "invalid_type", "hyperparameters", "object", hyperparameters=[])
    yield job(
        "old form",
        "integer_above_max_value",
        "hyperparameters.n_epochs",
        "50",
        hyperparameters={"n_epochs": 51},
    )
    yield Case(
        "job: tuned model",
        "POST",
        JOBS,
        404,
        "model_not_found",
        "model",
        "does not exist",
        json.dumps({"model": "ft:tiny-base:local::abcdefgh", "training_file": "file-n"}).encode(),
    )


def _hyperparameters() -> Iterator[Case]:
    for name, high in (("n_epochs", 51), ("batch_size", 257)):
        yield supervised("low", "integer_below_min_value", name, ">= 1", 0)
        yield supervised("high", "integer_above_max_value", name, str(high - 1), high)
        yield supervised("huge", "integer_above_max_value", name, str(high - 1), 10**400)
        yield supervised("decimal", "invalid_type", name, "integer", 1.5)
        yield supervised("text", "invalid_type", name, "auto", "3")
        yield supervised("null", "invalid_type", name, "null", None)
        yield supervised("true", "invalid_type", name, "boolean", True)
    rate = "learning_rate_multiplier"
    yield supervised("zero", "decimal_below_min_value", rate, "> 0", 0)
    yield supervised("negative", "decimal_below_min_value", rate, "> 0", -1.5)
    yield supervised("large", "decimal_above_max_value", rate, "1000", 1001)
    yield supervised("text", "invalid_type", rate, "auto", "fast")
    yield supervised("of an odd name", "unknown_parameter", "learning_rate", "learning_rate", 1)
    yield supervised("of dpo", "unknown_parameter", "beta", "beta", 0.1)


def _forms() -> Iterator[Case]:
    file = part("file", ROW, "train.jsonl")
    missing = "missing_required_parameter"
    yield form("no purpose", missing, "purpose", "purpose", file + END)
    yield form("no file", missing, "file", "file", PURPOSE + END)
    yield form("nothing", missing, "purpose", "purpose", END)
    yield form("file as a field", "invalid_type", "file", "file", PURPOSE + part("file", ROW) + END)
    yield form("two files", "invalid_value", "file", "more than once", PURPOSE + file + file + END)
    yield form(
        "two purposes", "invalid_value", "purpose", "more than once", PURPOSE * 2 + file + END
    )
    yield form(
        "unknown field",
        "unknown_parameter",
        "colour",
        "colour",
        PURPOSE + part("colour", b"red") + file + END,
    )
    yield form(
        "unknown file",
        "unknown_parameter",
        "data",
        "data",
        PURPOSE + part("data", ROW, "a") + file + END,
    )
    yield form(
        "odd purpose", "invalid_value", "purpose", "fine-tune", part("purpose", b"fun") + file + END
    )
    for purpose in ("assistants", "vision", "evals"):
        body = part("purpose", purpose.encode()) + file + END
        yield form(purpose, "unsupported_value", "purpose", purpose, body)
    results = part("purpose", b"fine-tune-results") + file + END
    yield form("results", "invalid_value", "purpose", "fine-tune", results)
    anchor = part("expires_after[anchor]", b"created_at")
    for name, seconds, code, word in (
        ("soon", b"60", "integer_below_min_value", "3600"),
        ("late", b"9999999", "integer_above_max_value", "2592000"),
        ("text", b"a day", "invalid_type", "integer"),
        ("huge", b"9" * 1000, "integer_above_max_value", "2592000"),
    ):
        body = PURPOSE + anchor + part("expires_after[seconds]", seconds) + file + END
        yield form(f"expires {name}", code, "expires_after.seconds", word, body)
    odd = part("expires_after[anchor]", b"now") + part("expires_after[seconds]", b"3600")
    yield form(
        "anchor", "invalid_value", "expires_after.anchor", "created_at", PURPOSE + odd + file + END
    )
    yield form("half", missing, "expires_after.seconds", "seconds", PURPOSE + anchor + file + END)
    plain = part("expires_after", b"3600")
    yield form(
        "no brackets", "invalid_type", "expires_after", "object", PURPOSE + plain + file + END
    )
    for name, shown in (
        ("slashes", "../.."),
        ("a dot", ".."),
        ("a backslash", "a\\\\.."),
        ("nothing", ""),
    ):
        body = PURPOSE + part("file", ROW, shown) + END
        yield form(f"named with {name}", "invalid_value", "file", "name", body)
    long = PURPOSE + part("file", ROW, "n" * 300 + ".jsonl") + END
    yield form("long name", "invalid_value", "file", "255", long)
    bad = "invalid_multipart"
    yield form("cut off", bad, None, "boundary", PURPOSE + file)
    yield form("cut in the head", bad, None, "boundary", b"--cut\r\nContent-Dis")
    yield form("other boundary", bad, None, "malformed", PURPOSE.replace(b"cut", b"tuc"))
    yield form("no text", bad, None, "malformed", b"\x00\xff" * 50)
    yield form("no name", bad, None, "name", b"--cut\r\nContent-Type: a/b\r\n\r\nx\r\n" + END)
    yield form("purpose not UTF-8", bad, None, "UTF-8", part("purpose", b"\xff\xfe") + file + END)
    yield form(
        "name not UTF-8", bad, None, "UTF-8", PURPOSE + file.replace(b"train", b"\xff\xff") + END
    )
    yield form(
        "long field",
        "string_above_max_length",
        "purpose",
        "4096",
        part("purpose", b"x" * 9000) + file + END,
    )
    yield form(
        "many fields", bad, None, "32", b"".join(part(f"f{i}", b"") for i in range(40)) + END
    )
    huge = PURPOSE + part("file", ROW * 30_000, "train.jsonl") + END
    yield form("too large", "request_too_large", "file", "larger", huge, status=413)
    yield form("far too large", "request_too_large", None, "larger", huge * 2, status=413)
    kinds = {"json": "application/json", "form": "application/x-www-form-urlencoded", "none": ""}
    for name, kind in kinds.items():
        headers = {"content-type": kind}
        yield Case(
            f"upload: as {name}",
            "POST",
            FILES,
            400,
            "unsupported_content_type",
            None,
            "multipart",
            b"{}",
            headers,
        )
    bare = {"content-type": "multipart/form-data"}
    yield Case("upload: no boundary", "POST", FILES, 400, bad, None, "boundary", PURPOSE, bare)


def _poison() -> Iterator[Case]:
    yield poison("empty", b"", "empty")
    yield poison("CSV", b"question,answer\nq,a\n", "JSONL")
    yield poison("Excel", b"PK\x03\x04" + b"\0" * 100, "JSONL")
    yield poison("gzip", b"\x1f\x8b\x08" + b"\0" * 100, "JSONL")
    yield poison("UTF-16", (ROW * 3).decode().encode("utf-16"), "JSONL")
    yield poison("UTF-16 without a mark", (ROW * 3).decode().encode("utf-16-le"), "JSONL")
    yield poison("NUL at once", b"{}\0\n", "JSONL")
    yield poison("NUL later", ROW * 2000 + b'{"a": "\0"}\n', "Line 2001")
    yield poison("not UTF-8", ROW + b'{"a": "\xff"}\n', "Line 2")
    yield poison("latin-1", ROW * 3 + '{"a": "é"}\n'.encode("latin-1"), "Line 4")
    yield poison("cut off", ROW + ROW[:-20], "Line 2")
    yield poison("a list", ROW + b"[1]\n", "Line 2")
    yield poison("a number", ROW + b"7\n", "Line 2")
    yield poison("a JSON list", b"[\n" + ROW + b"]\n", "JSONL")
    yield poison("pretty JSON", json.dumps({"messages": []}, indent=2).encode(), "Line 1")
    yield poison("half a pair", ROW + b'{"a": "\\ud800"}\n', "Line 2")
    yield poison(
        "100,000 deep", ROW + b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "Line 2"
    )
    yield poison("NaN", ROW + b'{"a": NaN}\n', "Line 2")
    yield poison("infinity", ROW + b'{"a": Infinity}\n', "Line 2")
    yield poison("5,000 digits", ROW + b'{"a": ' + b"9" * 5000 + b"}\n", "Line 2")
    yield poison("1 MB of no JSON", ROW + b"x" * 1_000_000 + b"\n", "Line 2")
    yield poison("two values", ROW + ROW.strip() + b" " + ROW, "Line 2")


def _ids() -> Iterator[Case]:
    gone = "file-" + "a" * 24
    for method, path in (("GET", gone), ("DELETE", gone), ("GET", f"{gone}/content")):
        yield Case(f"{method} {path}", method, f"{FILES}/{path}", 404, None, "id", gone)
    none = "ftjob-" + "a" * 24
    for method, path in (
        ("GET", none),
        ("POST", f"{none}/cancel"),
        ("GET", f"{none}/events"),
        ("GET", f"{none}/checkpoints"),
    ):
        case = Case(
            f"{method} {path}",
            method,
            f"{JOBS}/{path}",
            404,
            "fine_tune_not_found",
            "fine_tune_id",
            none,
        )
        yield case
    yield Case(
        "DELETE no job",
        "DELETE",
        f"/v1/afina/jobs/{none}",
        404,
        "fine_tune_not_found",
        "fine_tune_id",
        none,
    )
    for name in (
        "gpt-9",
        "ft:gpt:org::abc",
        "..%2f..%2fetc%2fpasswd",
        "a%00b",
        "%F0%9F%92%A9",
        "'; DROP TABLE jobs;--",
    ):
        yield get(f"/v1/models/{name}", 404, "model_not_found", "model", "model")
        case = Case(
            f"DELETE model {name}",
            "DELETE",
            f"/v1/models/{name}",
            404,
            "model_not_found",
            "model",
            "model",
        )
        yield case
    yield Case("DELETE a base", "DELETE", f"/v1/models/{BASE}", 403, None, "model", "base")
    yield get(f"{FILES}/file-%00", 404, None, "id", "file")
    yield get(f"{FILES}/..%2f..%2fapi-key", 404, "unknown_url", None, "URL")
    yield get(f"{JOBS}/{'j' * 900}", 404, "fine_tune_not_found", "fine_tune_id", "fine tune")
    yield get("/v1/models/" + "m" * 5000, 400, "unknown_url", None, "1024")
    yield Case("no key", "DELETE", f"{KEYS}/key_none", 404, None, "key_id", "key_none")


def _queries() -> Iterator[Case]:
    for path, high in ((FILES, 10_001), (JOBS, 1001), ("/v1/afina/ledger", 1001)):
        yield get(f"{path}?limit=0", 400, "integer_below_min_value", "limit", ">= 1")
        yield get(f"{path}?limit={high}", 400, "integer_above_max_value", "limit", str(high - 1))
        yield get(f"{path}?limit=many", 400, "invalid_type", "limit", "integer")
        yield get(f"{path}?limit=1&limit=2", 400, "invalid_value", "limit", "more than once")
        yield get(f"{path}?limit=1.5", 400, "invalid_type", "limit", "integer")
        yield get(f"{path}?page=2", 400, "unknown_parameter", "page", "page")
        yield get(f"{path}?after=", 400, "string_below_min_length", "after", "after")
    yield get(f"{FILES}?order=up", 400, "invalid_value", "order", "asc")
    yield get(f"{FILES}?purpose=fun", 400, "invalid_value", "purpose", "fine-tune")
    yield get(f"{FILES}?after=file-none", 400, None, "after", "file-none")
    yield get(f"{JOBS}?after=ftjob-none", 400, None, "after", "ftjob-none")
    yield get(f"{JOBS}?metadata=x", 400, "invalid_type", "metadata", "metadata")
    yield get(
        f"{JOBS}?metadata[a]=1&metadata[a]=2", 400, "invalid_value", "metadata[a]", "more than once"
    )
    yield get(f"{JOBS}?colour[a]=1", 400, "unknown_parameter", "colour", "colour")
    yield get("/v1/models?limit=3", 400, "unknown_parameter", "limit", "limit")
    yield get("/v1/afina/usage?group_by=colour", 400, "invalid_value", "group_by", "model")
    yield get("/v1/afina/usage?start_time=today", 400, "invalid_type", "start_time", "integer")


def _urls() -> Iterator[Case]:
    for path in (
        "/",
        "/v1",
        "/v1/",
        "/v2/files",
        "/v1/file",
        "/v1/files/",
        "/wp-login.php",
        "/.env",
        "/v1//files",
    ):
        yield get(path, 404, "unknown_url", None, path)
    for method, path in (
        ("PUT", FILES),
        ("PATCH", f"{FILES}/file-a"),
        ("DELETE", JOBS),
        ("POST", "/v1/models"),
        ("OPTIONS", FILES),
        ("DELETE", "/health"),
    ):
        yield Case(f"{method} {path}", method, path, 405, "method_not_allowed", None, method)
    for method, path, word in (
        ("POST", "/v1/fine_tuning/alpha/graders/run", "Graders"),
        ("GET", "/v1/organization/usage/images", "Usage"),
        ("GET", "/v1/evals", "Evals"),
        ("POST", "/v1/images/generations", "Images"),
        ("POST", "/v1/audio/speech", "Audio"),
        ("GET", "/v1/fine-tunes", "fine-tunes"),
    ):
        yield Case(
            f"{method} {path}", method, path, 404, "operation_not_offered", None, word, b"{}"
        )
    missing = "missing_required_parameter"
    for method, path, status, code, param, word in (
        ("POST", "/v1/completions", 400, missing, "model", "model"),
        ("POST", "/v1/responses", 400, missing, "model", "model"),
        ("GET", "/v1/responses/resp_1/input_items", 404, None, "response_id", "resp_1"),
        ("DELETE", f"{CHAT}/c", 404, None, "id", "chat completion"),
        ("POST", f"{JOBS}/j/pause", 404, "fine_tune_not_found", "fine_tune_id", "fine tune"),
        ("POST", f"{JOBS}/j/resume", 404, "fine_tune_not_found", "fine_tune_id", "fine tune"),
        ("GET", "/v1/organization/usage/completions", 400, missing, "start_time", "start_time"),
    ):
        yield Case(f"{method} {path}", method, path, status, code, param, word, b"{}")


def _keys() -> Iterator[Case]:
    for name, header, word in (
        ("none", None, "API key"),
        ("empty", "Bearer", "API key"),
        ("wrong", "Bearer sk-afina-wrong", "API key"),
        ("basic", "Basic YTpi", "Bearer"),
        ("long", "Bearer " + "k" * 5000, "API key"),
        ("bare", "sk-afina-x", "Bearer"),
    ):
        for method, path in (
            ("GET", FILES),
            ("POST", CHAT),
            ("POST", FILES),
            ("GET", "/v1/afina/usage"),
        ):
            headers = {"authorization": header or ""}
            yield Case(
                f"{method} {path} with key {name}",
                method,
                path,
                401,
                "invalid_api_key",
                None,
                word,
                b"{}",
                headers,
            )
    for name, code in (
        ("OpenAI-Organization", "mismatched_organization"),
        ("OpenAI-Project", "mismatched_project"),
    ):
        yield Case(f"other {name}", "GET", FILES, 401, code, None, name, None, {name: "org-other"})


def _headers() -> Iterator[Case]:
    long = {"x-client-request-id": "r" * 513}
    yield Case(
        "long client id",
        "GET",
        FILES,
        400,
        "invalid_value",
        None,
        "X-Client-Request-Id",
        None,
        long,
    )
    body = json.dumps({"model": BASE, "training_file": "file-a"}).encode()
    key = {"idempotency-key": "k" * 256}
    yield Case(
        "long idempotency key",
        "POST",
        JOBS,
        400,
        "invalid_value",
        "Idempotency-Key",
        "255",
        body,
        key,
    )
    text = {"content-type": "text/plain"}
    yield Case(
        "chat as text", "POST", CHAT, 400, "unsupported_content_type", None, "json", body, text
    )
    unknown = b'{"reason": "bored"}'
    yield Case(
        "cancel with a body",
        "POST",
        f"{JOBS}/j/cancel",
        400,
        "unknown_parameter",
        "reason",
        "reason",
        unknown,
    )
    yield Case(
        "key without name", "POST", KEYS, 400, "missing_required_parameter", "name", "name", b"{}"
    )
    yield Case(
        "key with a scope",
        "POST",
        KEYS,
        400,
        "unknown_parameter",
        "scope",
        "scope",
        b'{"name": "a", "scope": 1}',
    )
    yield Case(
        "key for a second",
        "POST",
        KEYS,
        400,
        "integer_below_min_value",
        "expires_after_s",
        "60",
        b'{"name": "a", "expires_after_s": 1}',
    )
