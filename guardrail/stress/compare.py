"""What changed against an earlier run: read from its `results.json`, item by item, by id."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from guardrail.errors import ConfigError
from guardrail.stress.run import Outcome, is_miss

RESULTS = "results.json"


@dataclass(frozen=True, slots=True)
class Change:
    """A mistake that is new (`fresh`) or no longer made."""

    id: str
    mistake: str
    fresh: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Changes of items that both runs hold; `revision` is the earlier run's."""

    revision: str
    changes: tuple[Change, ...]
    only_now: int
    only_then: int

    def of(self, *, miss: bool, fresh: bool) -> list[Change]:
        return [c for c in self.changes if is_miss(c.mistake) is miss and c.fresh is fresh]


@dataclass(frozen=True, slots=True)
class Earlier:
    revision: str
    mistakes: Mapping[str, frozenset[str]]


def read_earlier(folder: Path) -> Earlier:
    """The earlier run in a folder; raises ConfigError when there is none."""
    path = folder / RESULTS
    try:
        data = orjson.loads(path.read_bytes())
        return Earlier(str(data["revision"]), {str(i): frozenset(map(str, m)) for i, m in data["items"].items()})
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name the --out folder of an earlier run") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{path}: is not the result of guardrail evaluate") from None


def compare(earlier: Earlier, outcomes: Sequence[Outcome]) -> Comparison:
    """Every mistake that came or went, in the order of the items."""
    changes: list[Change] = []
    ids = {o.item.id for o in outcomes}
    for outcome in outcomes:
        before = earlier.mistakes.get(outcome.item.id)
        if before is None:
            continue
        now = frozenset(outcome.mistakes)
        changes += [Change(outcome.item.id, m, True) for m in sorted(now - before)]
        changes += [Change(outcome.item.id, m, False) for m in sorted(before - now)]
    return Comparison(earlier.revision, tuple(changes), len(ids - earlier.mistakes.keys()), len(earlier.mistakes.keys() - ids))
