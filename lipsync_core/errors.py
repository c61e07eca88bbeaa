"""Errors that the caller's code cannot rule out.

Wrong arguments raise ValueError; broken internal invariants raise AssertionError.
"""


class LipSyncError(Exception):
    """Base class of all failures caused by anything outside the caller's code.

    The message says what was got, what is expected and what to do.
    """


class NoFaceError(LipSyncError):
    """No frame has the face that the caller chose."""


class MediaError(LipSyncError):
    """A media file cannot be read or written."""


class NoClipsError(LipSyncError):
    """No clips were prepared, or none is long enough."""


class WeightsError(LipSyncError):
    """A weight file is missing, damaged, unverified, or of another kind than expected."""


class TrainingError(LipSyncError):
    """A training run cannot start, continue or be saved."""
