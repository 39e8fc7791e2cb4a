"""One JSON line per exchange, and alarms. Never a patient's words: only ids, disposition, outcome and timings.

What may be logged of a record is named here field by field; a new field of the record is not logged by itself.
"""

import sys
from datetime import UTC, datetime
from typing import BinaryIO

import orjson
import structlog

from guardrail.audit.record import ExchangeRecord


def configure(stream: BinaryIO | None = None) -> None:
    """JSON lines to standard error (or `stream`), flushed line by line."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        logger_factory=structlog.BytesLoggerFactory(stream or sys.stderr.buffer),
        cache_logger_on_first_use=stream is None,
    )


class LogRecorder:
    """Writes the line of an exchange.

    Where lines go to a bytes logger it is given the line directly: structlog's chain of processors costs more than the review
    of a short message. The fields are those that the chain would write.
    """

    def __init__(self) -> None:
        self._log = structlog.get_logger("guardrail")
        logger = structlog.get_config()["logger_factory"]()
        self._lines = logger if isinstance(logger, structlog.BytesLogger) else None

    def record(self, record: ExchangeRecord) -> None:
        decision = record.decision
        fields: dict[str, object] = {
            "exchange": record.id,
            "dialect": record.dialect,
            "outcome": record.outcome,
            "status": record.status,
            "stream": record.stream,
            "guard_ms": round(record.guard_ms, 2),
            "upstream_ms": round(record.upstream_ms, 1),
            "total_ms": round(record.total_ms, 1),
        }
        if record.tenant:
            fields["tenant"] = record.tenant
        if record.model:
            fields["model"] = record.model[:100]
        if decision is not None:
            fields["urgency"] = decision.urgency.word
            fields["destination"] = decision.destination
            fields["action"] = decision.action
            fields["rules"] = [h.rule for h in decision.hits]
            fields["packs"] = decision.revision
        if record.reply:
            fields["reply"] = [f"{c['channel']}:{c['action']}" for c in record.reply]
        if record.not_evaluated:
            fields["not_evaluated"] = len(record.not_evaluated)
        if record.error and record.outcome is not record.outcome.REJECTED:
            fields["error"] = record.error
        if self._lines is None:
            self._log.info("exchange", **fields)
        else:
            fields |= {"event": "exchange", "level": "info", "timestamp": datetime.now(UTC)}
            self._lines.info(orjson.dumps(fields, option=orjson.OPT_UTC_Z))
