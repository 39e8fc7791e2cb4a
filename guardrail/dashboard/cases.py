"""A verdict as a test case for a pack: what a reviewer found out becomes what the rule is held to.

The texts are those that were kept: redacted, unless the site keeps them encrypted. Read the case before adding it to a pack.
"""

from collections.abc import Mapping
from typing import Any, Final

import yaml

_GROUP: Final = {"right": "fires", "false_alarm": "quiet", "missed": "fires"}
# The chatbot's messages are not kept, but a case alternates.
_NOT_KEPT: Final = "(not kept)"


def case_of(entry: Mapping[str, Any], review: Mapping[str, Any]) -> str | None:
    """YAML to paste into a rule's test file, or None where the exchange has no verdict or its text was not kept."""
    texts, verdict = entry["texts"], review["verdict"]
    if not texts or verdict not in _GROUP:
        return None
    hits = entry["decision"]["rules"] if entry["decision"] else []
    case: dict[str, Any] = {"text": texts[0]} if len(texts) == 1 else {"turns": _turns(texts)}
    if review["comment"]:
        case["why"] = review["comment"]
    place = "the test file of the rule that should have held"
    if hits and verdict != "missed":
        place = f"{hits[0]['pack']}/tests/{hits[0]['id']}.yaml"
    head = f"# From exchange {entry['id']}, verdict {verdict.replace('_', ' ')}. Add to {place}.\n"
    head += "# Read it first: nothing in it may identify a person.\n"
    return head + yaml.safe_dump({_GROUP[verdict]: [case]}, sort_keys=False, allow_unicode=True, width=120)


def _turns(texts: list[str]) -> list[str]:
    turns = [texts[0]]
    for text in texts[1:]:
        turns += [_NOT_KEPT, text]
    return turns
