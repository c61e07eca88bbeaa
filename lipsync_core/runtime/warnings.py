"""Collect warnings for the log and for reports."""

import logging


class WarningLog:
    """Log each different message once and keep it for the report."""

    def __init__(self, log: logging.Logger) -> None:
        self.messages: list[str] = []
        self._log = log

    def __call__(self, message: str) -> None:
        """Log and keep ``message``, unless it was given before."""
        if message not in self.messages:
            self.messages.append(message)
            self._log.warning("%s", message)
