"""The parts of the engine that exist twice: in Python, which is the reference, and in compiled code where it was built.

The compiled ones find the same; a test compares them on thousands of texts.
"""

from typing import TYPE_CHECKING

from guardrail.engine.finder import Finder
from guardrail.engine.scorer import Scorer

COMPILED = False

if not TYPE_CHECKING:
    try:
        from guardrail.engine._finder import Finder
        from guardrail.engine._scorer import Scorer
    except ImportError:
        pass
    else:
        COMPILED = True

__all__ = ["COMPILED", "Finder", "Scorer"]
