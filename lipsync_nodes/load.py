"""What goes in: demo media, sound, a model, a folder of videos."""

from comfy_api.latest import io

from . import host
from .sockets import CATEGORY, Model

_NO_FILE = "(upload a file)"  # an empty list would leave the widget without a value, and the graph invalid
_DEMO = ["portrait", "talking", "out of sync", "two people"]


class DemoMedia(io.ComfyNode):
    """The bundled face and speech."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LipSync_DemoMedia",
            display_name="Demo Media",
            category=CATEGORY,
            description="A face and a voice to try things with: nothing to download, nothing to choose. The photograph is "
            "NASA's portrait of the astronaut Eileen Collins (public domain), the speech is synthetic.",
            search_aliases=["lip sync example", "sample face", "test video", "wav2lip demo"],
            inputs=[
                io.Combo.Input(
                    "clip",
                    options=_DEMO,
                    default=_DEMO[0],
                    tooltip="portrait: a photograph and a speech. talking: the same face speaking it. out of sync: the same "
                    "with the sound 200 ms late. two people: the photograph beside its mirror image.",
                )
            ],
            outputs=[
                io.Image.Output("image", tooltip="The photograph."),
                io.Video.Output("video", tooltip="The clip, as long as the speech."),
                io.Audio.Output("audio", tooltip="The speech; for 'out of sync' as late as in the clip."),
            ],
        )

    @classmethod
    def execute(cls, clip: str) -> io.NodeOutput:
        raise NotImplementedError("Demo Media is not written yet")


class LoadAudio(io.ComfyNode):
    """Sound of any file or video."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LipSync_LoadAudio",
            display_name="Load Audio (Lip Sync)",
            category=CATEGORY,
            description="The sound of an audio or video file, or of a video that comes from another node; all of it or a part.",
            search_aliases=["import speech", "voice", "extract audio from video", "trim audio", "wav2lip audio"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=host.input_files(["audio", "video"]) or [_NO_FILE],
                    upload=io.UploadType.audio,
                    tooltip="An audio or video file of ComfyUI's input folder. Not used when a video is connected.",
                ),
                io.Float.Input(
                    "start", default=0.0, min=0.0, max=86400.0, step=0.01, tooltip="Where to begin, in seconds."
                ),
                io.Float.Input(
                    "end",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.01,
                    tooltip="Where to stop, in seconds; 0 goes to the end.",
                ),
                io.Video.Input("video", optional=True, tooltip="Takes the sound of this video instead of a file's."),
            ],
            outputs=[
                io.Audio.Output("audio", tooltip="The sound, at its own sample rate and with its own channels."),
                io.Float.Output("duration", tooltip="How long it is, in seconds."),
            ],
        )

    @classmethod
    def execute(cls, file: str, start: float, end: float, video=None) -> io.NodeOutput:
        raise NotImplementedError("Load Audio (Lip Sync) is not written yet")


class LoadLipSyncModel(io.ComfyNode):
    """The network that draws the mouth."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LipSync_LoadLipSyncModel",
            display_name="Load Lip Sync Model",
            category=CATEGORY,
            description="The network that draws the mouth. Without it, 'Generate Lip Sync (Wav2Lip)' takes the bundled one.",
            search_aliases=["wav2lip model", "wav2lip checkpoint", "wav2lip gan", "lip sync weights"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=host.model_names(),
                    default=host.model_names()[0],
                    tooltip="mini (bundled): Apache-2.0, a few MB, nothing to download. wav2lip and wav2lip-gan (Hub): "
                    "416 MiB each, downloaded at the first run; research and personal use only, never commercial "
                    "(trained on the BBC's LRS2). Others: files in models/lipsync.",
                ),
                io.Combo.Input(
                    "precision",
                    options=["auto", "float32", "bfloat16"],
                    default="auto",
                    advanced=True,
                    tooltip="The arithmetic. auto: bfloat16 where a CPU is built for it, else as the weights are.",
                ),
            ],
            outputs=[Model.Output("model", tooltip="For 'Generate Lip Sync (Wav2Lip)'.")],
        )

    @classmethod
    def execute(cls, model: str, precision: str) -> io.NodeOutput:
        raise NotImplementedError("Load Lip Sync Model is not written yet")


class LoadVideos(io.ComfyNode):
    """A folder of videos, one after another."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LipSync_LoadVideos",
            display_name="Load Video Folder",
            category=CATEGORY,
            description="Every video of a folder, as a list: what is connected runs once for each.",
            search_aliases=["batch videos", "video list", "load videos from folder", "quality check"],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=host.video_folders(),
                    default="demo",
                    tooltip="A folder inside ComfyUI's input folder, or 'demo' for the clips of Demo Media.",
                ),
                io.Int.Input("limit", default=0, min=0, max=10000, tooltip="At most so many videos; 0 takes all."),
            ],
            outputs=[
                io.Video.Output("videos", tooltip="The videos, in the order of their names.", is_output_list=True),
                io.String.Output("names", tooltip="Their file names.", is_output_list=True),
            ],
        )

    @classmethod
    def execute(cls, folder: str, limit: int) -> io.NodeOutput:
        raise NotImplementedError("Load Video Folder is not written yet")
