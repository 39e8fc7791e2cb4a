"""JSON Schemas of the files in a pack, for completion in editors."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from guardrail.engine.answers import Country, LanguageTexts
from guardrail.engine.knowledge import Policy
from guardrail.engine.rules import Rule
from guardrail.packs.load import Cases, Concept, CueGroup, Pack
from guardrail.packs.overrides import Overrides

_FILES: Mapping[str, Any] = {
    "pack": Pack,
    "rule": Rule,
    "concepts": dict[str, Concept],
    "tests": Cases,
    "cues": dict[str, CueGroup],
    "answers": LanguageTexts,
    "contacts": dict[str, Country],
    "policy": Policy,
    "overrides": Overrides,
}


def schemas() -> dict[str, dict[str, Any]]:
    """Name of the kind of file -> its schema."""
    return {
        name: {"$schema": "https://json-schema.org/draft/2020-12/schema", **TypeAdapter(shape).json_schema()}
        for name, shape in _FILES.items()
    }
