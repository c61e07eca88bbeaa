"""The work of the node 'Demo Media'."""

from pathlib import Path
from typing import Any

from torch import Tensor

from ..lipsync_core.errors import MediaError
from ..lipsync_core.pipelines.demo import DemoName, make_demo_clip
from . import convert, host, preview
from .videos import video_output, video_source

_SPOKEN: tuple[DemoName, ...] = ("talking", "out of sync")
_NO_VIDEO = (
    "only an image is connected to 'Demo Media': connect a video to its 'video', or use the output "
    "'image'"
)


def demo_media(
    clip: DemoName, image: Tensor | None, video: Any, audio: Any, progress: host.Progress
) -> tuple[Any, Any, Any]:
    """Make the demo, with the user's own media in the place of its parts.

    Args:
        clip: The demo clip.
        image: IMAGE in the place of its picture; None for a video's first frame, or the demo's.
        video: VIDEO in the place of its video.
        audio: AUDIO in the place of its speech; None for the video's own, or the demo's.
        progress: The bar.

    Returns:
        IMAGE, VIDEO and AUDIO; a block with the reason where there is none.
    """
    if video is not None:
        first = preview.first_frame(video) if image is None else image
        return first, video, _own_sound(video) if audio is None else audio
    if image is not None and audio is not None:
        return image, host.blocked(_NO_VIDEO), audio
    made = make_demo_clip(host.temp_folder("lipsync-demo"), clip, on_progress=progress)
    speech = convert.audio_value(made.audio) if audio is None else audio
    if image is not None:
        return image, host.blocked(_NO_VIDEO), speech
    return convert.image(made.image), video_output(made.video), speech


def demo_videos(progress: host.Progress) -> list[Path]:
    """Make the demo clips that speak; return their files."""
    folder = host.temp_folder("lipsync-demo")
    return [make_demo_clip(folder, name, on_progress=progress).video for name in _SPOKEN]


def _own_sound(video: Any) -> Any:
    try:
        return convert.audio_value(video_source(video).audio())
    except MediaError as error:
        return host.blocked(f"{error}; connect an audio to 'Demo Media'")
