"""What a run has to say besides its result."""

import logging


class WarningLog:
    """Takes messages, each once: logs them at once, and keeps them for the report."""

    def __init__(self, log: logging.Logger) -> None:
        self.messages: list[str] = []
        self._log = log

    def __call__(self, message: str) -> None:
        if message not in self.messages:
            self.messages.append(message)
            self._log.warning("%s", message)
