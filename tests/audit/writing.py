"""A process that records exchanges until it is told to stop, or killed: `python -m tests.audit.writing URL NAME COUNT SPOOL`.

Prints a line with the number of the last exchange that was acknowledged: flushed to the store, or to the spool while it is away.
"""

import sys
from dataclasses import replace
from pathlib import Path

from guardrail.audit.keys import SigningKey
from guardrail.audit.store import AuditStore
from tests.audit.records import exchange

BURST = 20


def main(url: str, name: str, count: int, spool: str) -> None:
    store = AuditStore(url, spool=Path(spool), signing=SigningKey.new())
    for number in range(count):
        store.record(replace(exchange(number), id=f"{name}-{number:06}"))
        if number % BURST == BURST - 1:
            store.flush()
            print(number, flush=True)
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
