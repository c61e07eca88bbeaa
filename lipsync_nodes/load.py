"""What goes in: demo media, sound, a model, a folder of videos."""
# pyright: reportUntypedBaseClass=false, reportMissingParameterType=false

from typing import Any

from comfy_api.latest import io

from ..lipsync_core.errors import LipSyncError
from ..lipsync_core.pipelines.demo import make_demo_clip
from ..lipsync_core.pipelines.restore import Restore
from . import convert, host
from .sockets import CATEGORY, Model, Restorer
from .types import Voice
from .videos import file_source, video_output, video_source

_DEMO = ["portrait", "talking", "out of sync", "two people"]
_SPOKEN = ("talking", "out of sync")
_STAGES = {"find faces": 1, "dub": 4}  # times of making a clip


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
                io.Audio.Output(
                    "audio", tooltip="The speech; for 'out of sync' as late as in the clip."
                ),
            ],
        )

    @classmethod
    def execute(cls, clip) -> io.NodeOutput:
        made = make_demo_clip(
            host.temp_folder("lipsync-demo"), clip, on_progress=host.Progress(_STAGES)
        )
        return io.NodeOutput(
            convert.image(made.image), video_output(made.video), convert.audio_value(made.audio)
        )


class LoadAudio(io.ComfyNode):
    """Sound of any file or video."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LipSync_LoadAudio",
            display_name="Load Audio (Lip Sync)",
            category=CATEGORY,
            description="The sound of an audio or video file, or of a video that comes from another node; all of it or a part.",
            search_aliases=[
                "import speech",
                "voice",
                "extract audio from video",
                "trim audio",
                "wav2lip audio",
            ],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=host.input_names(["audio", "video"]),
                    upload=io.UploadType.audio,
                    tooltip="An audio file, or a video that lies in ComfyUI's input folder already. The button uploads audio "
                    "only: upload a video with 'Load Video', and connect that to 'video'. Not used when a video is "
                    "connected.",
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.01,
                    tooltip="Where to begin, in seconds.",
                ),
                io.Float.Input(
                    "end",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.01,
                    tooltip="Where to stop, in seconds; 0 goes to the end.",
                ),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="Takes the sound of this video instead of a file's.",
                ),
            ],
            outputs=[
                io.Audio.Output(
                    "audio", tooltip="The sound, at its own sample rate and with its own channels."
                ),
                io.Float.Output("duration", tooltip="How long it is, in seconds."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file=None, video: Any = "not connected"):
        if file is None or video is None:  # the host does not know yet what links bring
            return True
        try:
            host.input_file(file)
        except LipSyncError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file=None, **_):
        return host.input_stamp(file)

    @classmethod
    def execute(cls, file, start, end, video=None) -> io.NodeOutput:
        if end and end <= start:
            raise ValueError(
                f"the end ({end:g} s) is not after the start ({start:g} s); 0 goes to the end"
            )
        source = file_source(host.input_file(file)) if video is None else video_source(video)
        sound = source.audio(convert.seconds(start), convert.seconds(end) if end else None)
        return io.NodeOutput(convert.audio_value(sound), sound.samples.shape[1] / sound.rate)


class LoadLipSyncModel(io.ComfyNode):
    """The network that draws the mouth."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LipSync_LoadLipSyncModel",
            display_name="Load Lip Sync Model",
            category=CATEGORY,
            description="The network that draws the mouth. Without it, 'Generate Lip Sync (Wav2Lip)' takes the bundled one.",
            search_aliases=[
                "wav2lip model",
                "wav2lip checkpoint",
                "wav2lip gan",
                "lip sync weights",
            ],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=host.model_names(),
                    default=host.BUNDLED,
                    tooltip="mini (bundled): Apache-2.0, a few MB, nothing to download. wav2lip and wav2lip-gan (Hub): "
                    "416 MiB each, downloaded at the first run; research and personal use only, never commercial "
                    "(trained on the BBC's LRS2). mini-2 (bundled): what mini was before; its lips follow the new speech "
                    "hardly. Others: files in models/lipsync.",
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
    def fingerprint_inputs(cls, model=None, **_):
        return host.model_stamp(model)

    @classmethod
    def execute(cls, model, precision) -> io.NodeOutput:
        patcher = host.generator(model, host.Progress({"pull": 1}))
        return io.NodeOutput(
            Voice(patcher, host.HUB.get(model) or host.BUNDLED_TOO.get(model) or model, precision)
        )


class LoadFaceRestorer(io.ComfyNode):
    """The network that restores what was drawn."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LipSync_LoadFaceRestorer",
            display_name="Load Face Restorer",
            category=CATEGORY,
            description="A network that restores faces: it makes soft mouths sharp again, after 'Generate Lip Sync (Wav2Lip)' "
            "drew them.",
            search_aliases=[
                "gfpgan",
                "codeformer",
                "restoreformer",
                "face restore",
                "face enhance",
                "upscale face",
            ],
            inputs=[
                io.Combo.Input(
                    "network",
                    options=host.restorer_names(),
                    default="gfpgan (Hub)",
                    tooltip="Downloaded at the first run: gfpgan (349 MB; Apache-2.0, but for parts for non-commercial use), "
                    "restoreformer (291 MB; Apache-2.0), codeformer (377 MB; non-commercial use only; needs "
                    "spandrel_extra_arches). Others: files in models/facerestore_models and models/lipsync.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="1 shows the restored face, 0 the drawn one; between them the two are mixed.",
                ),
                io.Combo.Input(
                    "mask",
                    options=["mouth", "lower", "face", "box"],
                    default="mouth",
                    tooltip="What is restored: mouth and chin, the lower half of the face, the whole face, or the square.",
                ),
            ],
            outputs=[Restorer.Output("restorer", tooltip="For 'Generate Lip Sync (Wav2Lip)'.")],
        )

    @classmethod
    def fingerprint_inputs(cls, network=None, **_):
        return host.restorer_stamp(network)

    @classmethod
    def execute(cls, network, strength, mask) -> io.NodeOutput:
        return io.NodeOutput(
            Restore(host.restorer(network, host.Progress({"pull": 1})), strength, mask)
        )


class LoadVideos(io.ComfyNode):
    """A folder of videos, one after another."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LipSync_LoadVideos",
            display_name="Load Video Folder",
            category=CATEGORY,
            description="Every video of a folder, as a list: what is connected runs once for each.",
            search_aliases=[
                "batch videos",
                "video list",
                "load videos from folder",
                "quality check",
            ],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=host.video_folders(),
                    default="demo",
                    tooltip="A folder inside ComfyUI's input folder, or 'demo' for those clips of Demo Media that speak.",
                ),
                io.Int.Input(
                    "limit",
                    default=0,
                    min=0,
                    max=10000,
                    tooltip="At most so many videos; 0 takes all.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    "videos",
                    tooltip="The videos, in the order of their names.",
                    is_output_list=True,
                ),
                io.String.Output("names", tooltip="Their file names.", is_output_list=True),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder=None):
        try:
            _ = folder in (None, host.DEMO_FOLDER) or host.videos_in(folder)
        except LipSyncError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder=None, **_):
        return host.folder_stamp(folder)

    @classmethod
    def execute(cls, folder, limit) -> io.NodeOutput:
        if folder == host.DEMO_FOLDER:
            progress = host.Progress(_STAGES)
            paths = [
                make_demo_clip(host.temp_folder("lipsync-demo"), name, on_progress=progress).video
                for name in _SPOKEN
            ]
        else:
            paths = host.videos_in(folder)
        paths = paths[: limit or None]
        return io.NodeOutput([video_output(path) for path in paths], [path.name for path in paths])
