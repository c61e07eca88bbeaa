"""Media in and out, through PyAV and nothing else: no ffmpeg binary, no shell, no files between stages.

Only this package imports ``av``.
"""

from .reading import probe, read_frames
from .shifting import write_shifted
from .sound import SoundInfo, probe_sound, read_audio, resample_pyav
from .tracks import AudioSource
from .writing import VideoWriter

__all__ = [
    "AudioSource",
    "SoundInfo",
    "VideoWriter",
    "probe",
    "probe_sound",
    "read_audio",
    "read_frames",
    "resample_pyav",
    "write_shifted",
]
