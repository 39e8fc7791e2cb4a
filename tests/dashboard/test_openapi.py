"""The description is valid OpenAPI, names every route and no other, and real answers are as it says."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from guardrail.app import Application, create_app
from guardrail.audit.record import Outcome
from guardrail.config import Settings
from guardrail.dashboard.openapi import description
from guardrail.engine.guard import Guard
from guardrail.engine.model import Destination, Urgency
from tests.dashboard.test_pages import HOSTILE, NoUpstream, app_of, keep, sign_in, token_of

TWINS = [path for path in description()["paths"] if path.endswith(".json")]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, small_guard: Guard) -> Iterator[TestClient]:
    """A store with exchanges of several kinds, one of them resolved; somebody signed in."""
    url = f"sqlite:///{tmp_path_factory.mktemp('store')}/audit.db"
    reply = {"channel": "content", "action": "cut", "issues": [{"issue": "dose_instruction", "rule": "dose", "text": "800 mg"}]}
    keep(url, small_guard, {"id000001": HOSTILE, "id000002": "how much ibuprofen", "id000003": "I have no chest pain"}, reply=(reply,))
    with app_of(url, small_guard) as client:
        sign_in(client, "reviewer")
        client.post("/-/dashboard/exchanges/id000001/review", data={"token": token_of(client)})
        client.post("/-/dashboard/exchanges/id000001/review", data={"token": token_of(client), "verdict": "missed", "comment": "x"})
        yield client


def test_it_is_valid() -> None:
    OpenAPIV31SpecValidator(description()).validate()


def test_it_is_served_to_who_may_read_and_to_nobody_else(client: TestClient) -> None:
    assert client.get("/-/dashboard/openapi.json").json() == description()
    with TestClient(client.app, base_url="http://127.0.0.1") as stranger:
        assert stranger.get("/-/dashboard/openapi.json").status_code == 401


def test_every_route_is_described_and_nothing_else(tmp_path: Any, small_guard: Guard) -> None:
    app = create_app(Settings(audit=f"sqlite:///{tmp_path}/audit.db"), guard=small_guard, upstream=NoUpstream())
    assert isinstance(app, Application)
    assert isinstance(app._rest, Starlette)
    served = {
        (route.path, method.lower())
        for route in app._rest.routes
        if isinstance(route, Route) and route.path.startswith(("/-/dashboard", "/-/packs", "/-/reload"))
        for method in (route.methods or set()) - {"HEAD"}
    }
    served.remove(("/-/dashboard/", "get"))  # leads to the path without the slash

    described = {(path, method) for path, methods in description()["paths"].items() for method in methods}

    assert described == served


@pytest.mark.parametrize("path", TWINS)
def test_answers_are_as_described(client: TestClient, path: str) -> None:
    for id in ("id000001", "id000002", "id000003"):
        response = client.get(path.replace("{id}", id))
        described = description()["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]

        assert response.status_code == 200
        assert _errors(response.json(), described) == []


def test_refusals_are_as_described(client: TestClient) -> None:
    error = {"$ref": "#/components/schemas/Error"}
    missing = client.get("/-/dashboard/exchanges/none.json")
    with TestClient(client.app, base_url="http://127.0.0.1") as stranger:
        unknown = stranger.get("/-/dashboard/rules.json")

    assert (missing.status_code, _errors(missing.json(), error)) == (404, [])
    assert (unknown.status_code, _errors(unknown.json(), error)) == (401, [])


def test_a_wrong_answer_would_be_found(client: TestClient) -> None:
    row = client.get("/-/dashboard/review.json").json()["exchanges"] or client.get("/-/dashboard/exchanges.json").json()["exchanges"]

    assert _errors({**row[0], "urgency": "dire"}, {"$ref": "#/components/schemas/Row"}) != []


def test_closed_sets_are_those_of_the_engine() -> None:
    schemas = description()["components"]["schemas"]

    assert schemas["Urgency"]["enum"] == [u.word for u in Urgency]
    assert schemas["Destination"]["enum"] == list(map(str, Destination))
    assert schemas["Outcome"]["enum"] == list(map(str, Outcome))


def test_ids_of_operations_are_names() -> None:
    ids = [operation["operationId"] for methods in description()["paths"].values() for operation in methods.values()]

    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z]+", id) for id in ids)


def _errors(answer: Any, schema: dict[str, Any]) -> list[str]:
    whole = {"components": description()["components"], **schema}
    return [f"{'/'.join(map(str, error.path))}: {error.message}" for error in OAS31Validator(whole).iter_errors(answer)]
