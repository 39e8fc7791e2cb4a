"""What several workers count, any of them tells; what a killed one counted stays."""

import os
import signal
from pathlib import Path

import httpx

from tests.processes import Server, guardrail_serve, needs_linux, wait_for
from tests.serving import saying, upstream
from tests.test_metrics import Samples, read

EMERGENCY = {"model": "m", "messages": [{"role": "user", "content": "I have chest pain"}]}
AMBULANCE = ("guardrail_escalations_total", (("destination", "ambulance"),))


def scrape(server: Server) -> Samples:
    return read(httpx.get(server.url + "/-/metrics").text)


@needs_linux
def test_metrics_of_all_workers_are_told_by_any(tmp_path: Path) -> None:
    with upstream(saying("Rest.")) as model, guardrail_serve(tmp_path, workers=2, upstream=model.url) as server:
        for _ in range(20):
            httpx.post(server.url + "/v1/chat/completions", json=EMERGENCY)

        assert [scrape(server)[AMBULANCE] for _ in range(6)] == [20.0] * 6
        first = scrape(server)
        revision = server.health()["packs"]
        assert first["guardrail_workers", (("revision", revision),)] == 2
        assert first["guardrail_part_works", (("part", "packs"),)] == 1
        assert first["guardrail_guard_seconds_count", ()] == 20
        assert ("guardrail_part_works", (("part", "upstream"),)) not in first

        before = server.workers()
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: len(set(server.workers()) - set(before)) == 1 and list(server.health()["workers"].values()) == [2], server)
        wait_for(lambda: scrape(server)["guardrail_workers", (("revision", revision),)] == 2, server)
        assert scrape(server)[AMBULANCE] == 20
