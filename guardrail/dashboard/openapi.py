"""The OpenAPI description of the dashboard: `openapi.yaml`, the version, and for each twin the page that it is the twin of."""

from functools import cache
from importlib.metadata import version
from typing import Any

import yaml

from guardrail.dashboard.render import HERE


@cache
def description() -> dict[str, Any]:
    """The description as JSON holds it."""
    document: dict[str, Any] = yaml.safe_load((HERE / "openapi.yaml").read_text(encoding="utf-8"))
    document["info"]["version"] = version("guardrail")
    twins = {path: methods["get"] for path, methods in document["paths"].items() if path.endswith(".json") and "openapi" not in path}
    for path, twin in twins.items():
        document["paths"][path.removesuffix(".json")] = {"get": _page_of(twin)}
    return document


def _page_of(twin: dict[str, Any]) -> dict[str, Any]:
    page = {"tags": ["people"], "operationId": f"{twin['operationId']}Page", "summary": f"{twin['summary']}: the page"}
    same = {name: twin[name] for name in ("parameters",) if name in twin}
    statuses = [status for status in twin["responses"] if status != "401"]
    responses = {status: {"$ref": "#/components/responses/Page"} for status in statuses}
    return {**page, **same, "responses": {**responses, "303": {"$ref": "#/components/responses/Redirect"}}}
