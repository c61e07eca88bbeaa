"""Read and write media through PyAV: no ffmpeg binary, no shell, no files between stages.

Only this package imports ``av``.
"""

from .audio_reader import SoundInfo, probe_sound, read_audio, resample_pyav
from .mux import AudioSource
from .output_path import check_output_path, refuse_inputs
from .remux import shift_audio, suffix_for_copy
from .sound_tracks import track_used
from .video_reader import probe, read_coded, read_frames
from .video_writer import VideoWriter

__all__ = [
    "AudioSource",
    "SoundInfo",
    "VideoWriter",
    "check_output_path",
    "probe",
    "probe_sound",
    "read_audio",
    "read_coded",
    "read_frames",
    "refuse_inputs",
    "resample_pyav",
    "shift_audio",
    "suffix_for_copy",
    "track_used",
]
