"""Moves rollouts on and keeps the repository's timestamp fresh, in a thread of the web process."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from cloud.updates import service
from cloud.updates.config import UpdatesSettings
from cloud.updates.keys import Keys
from cloud.updates.repository import Repository
from protocols.core.errors import CityBrainError

log = logging.getLogger(__name__)

_REFRESH_EVERY_S = 600.0


class Rolling:
    """For the life of a process. Several processes may have one: an advisory lock lets one of them move."""

    def __init__(self, dsn: str, settings: UpdatesSettings) -> None:
        self._dsn = dsn
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rollouts", daemon=True)
        self.error = ""  # "" while it works

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        refreshed_s = -_REFRESH_EVERY_S
        while not self._stop.is_set():
            try:
                with psycopg.connect(
                    self._dsn, autocommit=True, application_name="citybrain-rollouts", options="-c timezone=UTC"
                ) as conn:
                    while not self._stop.is_set():
                        now = datetime.now(UTC)
                        service.tick(conn, now)
                        if now.timestamp() - refreshed_s >= _REFRESH_EVERY_S:
                            refreshed_s = now.timestamp()
                            self._refresh(now)
                        self._well()
                        self._stop.wait(self._settings.tick_s)
            except (psycopg.Error, CityBrainError, OSError) as error:
                if not self.error:
                    log.error("rollouts stand still: %s", str(error).strip().splitlines()[0])
                self.error = str(error)
            self._stop.wait(5.0)

    def _well(self) -> None:
        if self.error:
            log.info("rollouts move again")
            self.error = ""

    def _refresh(self, now: datetime) -> None:
        """Sign that what is there is the newest. A repository nobody has made yet is no error."""
        repository = Repository(Path(self._settings.folder))
        if self._settings.online_key_dir and repository.exists():
            repository.refresh(Keys(Path(self._settings.online_key_dir)), now)
