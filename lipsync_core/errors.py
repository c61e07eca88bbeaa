"""Errors of the world. Wrong arguments raise ValueError; broken invariants of our own raise
AssertionError."""


class LipSyncError(Exception):
    """Anything outside the caller's code that stops the work; the message says what was got, wanted
    and what to do."""


class NoFaceError(LipSyncError):
    """No frame has the face that was asked for."""


class MediaError(LipSyncError):
    """A media file cannot be read or written."""


class NoClipsError(LipSyncError):
    """Nothing was prepared, or nothing long enough."""


class WeightsError(LipSyncError):
    """A weight file is missing, damaged, unverified, or of another kind than the one wanted."""


class TrainingError(LipSyncError):
    """A training run cannot begin, go on or be saved."""
