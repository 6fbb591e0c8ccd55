"""The platform's parts in one value: settings, database, blobs, clock and ids.

Every verb of this package takes a `Platform` and the `Caller` on whose behalf it runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from afina.domain.accounts import Caller
from afina.domain.clock import SYSTEM_CLOCK, Clock
from afina.domain.ids import SYSTEM_IDS, Ids
from afina.errors import BadSettings
from afina.service.pricing import check_prices
from afina.settings import Settings
from afina.store.blobs import LocalBlobs
from afina.store.database import Database
from afina.store.meter import DiskMeter
from afina.store.remote_blobs import open_blobs

__all__ = ["Caller", "Platform"]


@dataclass(frozen=True)
class Platform:
    """What verbs need."""

    settings: Settings
    database: Database
    blobs: LocalBlobs
    clock: Clock = SYSTEM_CLOCK
    ids: Ids = SYSTEM_IDS
    meter: DiskMeter = field(default_factory=DiskMeter, compare=False)

    @classmethod
    def open(
        cls, settings: Settings, clock: Clock = SYSTEM_CLOCK, ids: Ids = SYSTEM_IDS
    ) -> Platform:
        """Makes the data directory if need be, opens and migrates the database. Raises
        BadSettings in plain words where that cannot be."""
        check_prices(settings)
        try:
            settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise BadSettings(
                f"The data directory {settings.data} cannot be made: {error.strerror}.",
                remedy="Choose another one with --data or AFINA_DATA.",
            ) from None
        database = Database.open(settings.database_url)
        database.migrate()
        return cls(settings, database, open_blobs(settings), clock, ids)

    def now(self) -> int:
        """Unix seconds."""
        return int(self.clock.now())

    def close(self) -> None:
        """Closes the database."""
        self.database.close()
