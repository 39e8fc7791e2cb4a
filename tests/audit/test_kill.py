"""`guardrail serve` is killed (SIGKILL) under load: every exchange whose answer a client has read whole is in the record."""

import threading
from itertools import cycle
from pathlib import Path

import httpx

from guardrail.audit.reader import AuditReader
from guardrail.audit.store import AuditStore
from guardrail.audit.verify import verify
from tests.processes import guardrail_serve, wait_for
from tests.serving import saying, upstream

KILLS = 5
CLIENTS = 4
BODIES = (
    {"messages": [{"role": "user", "content": "what is in a lentil soup"}]},
    {"messages": [{"role": "user", "content": "what is in a lentil soup"}], "stream": True},
    {"messages": [{"role": "user", "content": "I have chest pain"}]},
    {"messages": [{"role": "user", "content": "I have chest pain"}], "stream": True},
)


class Client(threading.Thread):
    """Asks until the server is gone; `answered` holds the ids of the answers that it has read to their end."""

    def __init__(self, url: str, first: int) -> None:
        super().__init__(daemon=True)
        self.answered: set[str] = set()
        self._url = url
        self._first = first

    def run(self) -> None:
        bodies = cycle(BODIES[self._first :] + BODIES[: self._first])
        with httpx.Client(base_url=self._url, timeout=10) as client:
            while self._ask(client, {"model": "m", **next(bodies)}):
                pass

    def _ask(self, client: httpx.Client, body: dict[str, object]) -> bool:
        whole = False
        try:
            with client.stream("POST", "/v1/chat/completions", json=body) as response:
                id = response.headers["guardrail-exchange"]
                if body.get("stream"):
                    for line in response.iter_lines():
                        whole = whole or line == "data: [DONE]"
                        if whole:
                            self.answered.add(id)  # even where the server ends before the connection does
                else:
                    response.read()
                    self.answered.add(id)
        except httpx.TransportError:
            return False
        return True


def test_a_kill_in_the_middle_of_load_loses_no_acknowledged_record(url: str, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    answered: set[str] = set()
    with upstream(saying("Lentils, an onion, a carrot and some time.")) as model:
        for number in range(KILLS):
            with guardrail_serve(tmp_path, upstream=model.url, audit=url, audit_spool=str(spool)) as server:
                clients = [Client(server.url, first) for first in range(CLIENTS)]
                for client in clients:
                    client.start()
                wait_for(lambda: min(len(client.answered) for client in clients) > 10 + 7 * number)  # noqa: B023  # called here only
                server.process.kill()
                server.process.wait()
                for client in clients:
                    client.join(20)
                    answered |= client.answered

    AuditStore(url, spool=spool).close()  # whoever comes next brings in what was left

    reader = AuditReader(url)
    rows = [row for row in reader.chains() if row.kind == "exchange"]
    found = verify(reader.chains(), seals=reader.seals())
    reader.close()
    assert len(answered) > KILLS * CLIENTS * 10
    assert answered - {row.id for row in rows} == set()
    assert len(rows) == len({row.id for row in rows})
    assert found.problems == []
    assert [path.name for path in tmp_path.glob("spool*")] == []
