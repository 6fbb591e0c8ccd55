"""The lane that tells webhooks' receivers what happened.

Receivers may be slow, so that several are asked at once, and none of them holds up another lane.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from afina.domain.webhooks import Delivery
from afina.errors import AfinaError
from afina.pipeline.faults import fault_of
from afina.service import webhooks
from afina.service.platform import Platform

AT_ONCE: Final = 8
EVERY_S: Final = 0.5
log = structlog.get_logger()


class DeliveryLane:
    """Takes deliveries that are due, and carries them out."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def work(self) -> bool:
        """One round of up to `AT_ONCE`; False where nothing was due."""
        due = webhooks.claim(self._platform, AT_ONCE)
        if not due:
            return False
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook") as pool:
            for _ in pool.map(self._deliver, due):
                pass
        return True

    def _deliver(self, delivery: Delivery) -> None:
        """A fault of ours ends this delivery's attempt alone; its lease brings it back."""
        try:
            taken = webhooks.carry_out(self._platform, delivery)
            log.info("webhook", delivery=delivery.id, taken=taken, attempt=delivery.attempts)
        except AfinaError as error:
            log.warning("webhook.fault", delivery=delivery.id, error=error.one_line())
        except Exception as error:  # noqa: BLE001 - logged, and the work goes on
            log.error("webhook.fault", delivery=delivery.id, **fault_of(error))
