"""What all parameter models share: frozen, unknown keys refused, and a digest of any plain value."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

EXPERT: dict[str, Any] = {"is_expert": True}
"""A field with `json_schema_extra=EXPERT` is one that few users change; documentation lists it apart."""


def is_expert(field: FieldInfo) -> bool:
    """Whether a field is marked as one for experts."""
    return field.json_schema_extra == EXPERT


class Params(BaseModel):
    """Parameters of one stage: frozen, finite, with no key that is not a field."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def digest_of(value: Any) -> str:
    """SHA-256 hex of a JSON-like value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def message_of(mistake: Mapping[str, Any]) -> str:
    """What one of pydantic's `errors()` says, without the kind of exception that a check of ours raised."""
    return str(mistake["msg"]).removeprefix("Value error, ")
