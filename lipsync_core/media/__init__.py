"""Read and write media through PyAV: no ffmpeg binary, no shell, no files between stages.

Only this package imports ``av``. It is loaded with the first name that needs it, so that paths can
be checked before.
"""

from typing import TYPE_CHECKING

from ..runtime.lazy_names import import_on_use

if TYPE_CHECKING:
    from .audio_reader import SoundInfo, probe_sound, read_audio, resample_pyav
    from .descriptions import describe_codecs
    from .mux import AudioSource
    from .paths import check_output_path, refuse_inputs
    from .remux import shift_audio, suffix_for_copy
    from .sound_tracks import track_used
    from .video_reader import probe, read_coded, read_frames
    from .video_writer import VideoWriter

__all__ = [
    "AudioSource",
    "SoundInfo",
    "VideoWriter",
    "check_output_path",
    "describe_codecs",
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

_HOMES = {
    "audio_reader": ("SoundInfo", "probe_sound", "read_audio", "resample_pyav"),
    "descriptions": ("describe_codecs",),
    "mux": ("AudioSource",),
    "paths": ("check_output_path", "refuse_inputs"),
    "remux": ("shift_audio", "suffix_for_copy"),
    "sound_tracks": ("track_used",),
    "video_reader": ("probe", "read_coded", "read_frames"),
    "video_writer": ("VideoWriter",),
}

__getattr__ = import_on_use(globals(), _HOMES)
