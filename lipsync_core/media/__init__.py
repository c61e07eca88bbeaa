"""Media in and out, through PyAV and nothing else: no ffmpeg binary, no shell, no files between stages.

Only this package imports ``av``.
"""

from .reading import probe, read_coded, read_frames
from .shifting import copied_suffix, write_shifted
from .sound import SoundInfo, probe_sound, read_audio, resample_pyav
from .target import check_target, refuse_inputs
from .tracks import AudioSource
from .writing import VideoWriter

__all__ = [
    "AudioSource",
    "SoundInfo",
    "VideoWriter",
    "check_target",
    "copied_suffix",
    "probe",
    "probe_sound",
    "read_audio",
    "read_coded",
    "read_frames",
    "refuse_inputs",
    "resample_pyav",
    "write_shifted",
]
