"""Nodes that load: demo media, audio, models, a folder of videos."""
# pyright: reportUntypedBaseClass=false, reportMissingParameterType=false

from typing import Any

from comfy_api.latest import io

from ..lipsync_core.errors import LipSyncError
from ..lipsync_core.options import Restore
from . import host
from .options import option_inputs
from .sockets import CATEGORY, Model, Restorer

_DEMO = ["portrait", "talking", "out of sync", "two people"]
_STAGES = {"find faces": 1, "dub": 4}  # shares of the time


_UNLINKED = "not connected"


class DemoMedia(io.ComfyNode):
    """Provide the bundled face and speech."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="LipSync_DemoMedia",
            display_name="Demo Media",
            category=CATEGORY,
            description="A face and a voice to try the other nodes with; nothing is downloaded. "
            "Your own media, if connected, take their place. The photograph is an official "
            "portrait of a former member of the US Congress (public domain), the speech is "
            "synthetic.",
            search_aliases=["lip sync example", "sample face", "test video", "wav2lip demo"],
            inputs=[
                io.Combo.Input(
                    "clip",
                    options=_DEMO,
                    default=_DEMO[0],
                    tooltip="portrait: a photograph and a speech. talking: a video of the same "
                    "face speaking it. out of sync: that video with the sound 200 ms late."
                    " two people: the photograph beside its mirror image.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Your own picture, which takes the demo's place.",
                ),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="Your own video, which takes the place of the demo's video, of its "
                    "picture (the first frame) and of its audio (the video's own sound).",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="Your own speech, which takes the demo's place.",
                ),
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
    def execute(cls, clip, image=None, video=None, audio=None) -> io.NodeOutput:
        """Run the node."""
        from .demo import demo_media

        return io.NodeOutput(*demo_media(clip, image, video, audio, host.Progress(_STAGES)))


class LoadAudio(io.ComfyNode):
    """Load the sound of a file or video."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="LipSync_LoadAudio",
            display_name="Load Audio (LipSync)",
            category=CATEGORY,
            description="Loads the sound of an audio or video file, or of a connected video; all "
            "of it or a part.",
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
                    tooltip="An audio file or a video in ComfyUI's input folder. The button "
                    "uploads audio only: upload a video with 'Load Video' and connect that"
                    " to 'video'. Not used if a video is connected.",
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.01,
                    tooltip="Start of the part, in seconds.",
                ),
                io.Float.Input(
                    "end",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.01,
                    tooltip="End of the part, in seconds; 0: to the end.",
                ),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="A video whose sound is used instead of a file.",
                ),
                io.Int.Input(
                    "audio_track",
                    optional=True,  # workflows saved before lack it
                    default=0,
                    min=0,
                    max=99,
                    advanced=True,
                    tooltip="Number of the sound track in a file with several, from 1; 0: the one "
                    "that players choose.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="A sound that is used instead of a file, to take a part of it, or one "
                    "sound of a batch.",
                ),
                io.Int.Input(
                    "index",
                    optional=True,
                    default=0,
                    min=0,
                    max=9999,
                    advanced=True,
                    tooltip="Which sound of a batch in 'audio', from 0.",
                ),
            ],
            outputs=[
                io.Audio.Output(
                    "audio", tooltip="The sound, at its own sample rate and with its own channels."
                ),
                io.Float.Output("duration", tooltip="Its length in seconds."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file=None, video: Any = _UNLINKED, audio: Any = _UNLINKED):
        """Return True, or what is wrong with the inputs."""
        if file is None or video is None or audio is None:  # links, whose values come later
            return True
        try:
            host.input_file(file)
        except LipSyncError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file=None, **_):
        """Return a value that changes when the result would."""
        return host.input_stamp(file)

    @classmethod
    def execute(
        cls, file, start, end, video=None, audio_track=0, audio=None, index=0
    ) -> io.NodeOutput:
        """Run the node."""
        from . import convert
        from .videos import file_source, sound_source, video_source

        if end and end <= start:
            raise ValueError(
                f"the end ({end:g} s) is not after the start ({start:g} s); 0 goes to the end"
            )
        if audio is not None:
            source = sound_source(convert.audio(audio, index=index))
        else:
            source = file_source(host.input_file(file)) if video is None else video_source(video)
        first, last = convert.seconds(start), convert.seconds(end) if end else None
        sound = source.audio(first, last, audio_track or None, keep_early=video is None)
        return io.NodeOutput(convert.audio_value(sound), sound.samples.shape[1] / sound.rate)


class LoadLipSyncModel(io.ComfyNode):
    """Load the network that generates the mouth."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="LipSync_LoadLipSyncModel",
            display_name="Load LipSync Model",
            category=CATEGORY,
            description="Loads the network that generates the mouth. Without this node, 'LipSync "
            "Dub' uses the bundled one.",
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
                    tooltip="mini (bundled): Apache-2.0, a few MB, nothing to download. wav2lip "
                    "and wav2lip-gan (Hub): 416 MiB each, downloaded on first use; "
                    "research and personal use only, never commercial (trained on the "
                    "BBC's LRS2). mini-2 (bundled): an earlier mini, whose lips hardly "
                    "follow the new speech. Others: files in models/lipsync.",
                ),
                io.Combo.Input(
                    "precision",
                    options=["auto", "float32", "bfloat16"],
                    default="auto",
                    advanced=True,
                    tooltip="Arithmetic of the network. auto: bfloat16 if the CPU has units for "
                    "it, else that of the weights.",
                ),
            ],
            outputs=[Model.Output("model", tooltip="For 'LipSync Dub'.")],
        )

    @classmethod
    def fingerprint_inputs(cls, model=None, **_):
        """Return a value that changes when the result would."""
        return host.model_stamp(model)

    @classmethod
    def execute(cls, model, precision) -> io.NodeOutput:
        """Run the node."""
        from .types import Voice

        patcher = host.generator(model, host.Progress({"pull": 1}))
        return io.NodeOutput(
            Voice(patcher, host.HUB.get(model) or host.BUNDLED_TOO.get(model) or model, precision)
        )


class LoadFaceRestorer(io.ComfyNode):
    """Load a network that sharpens generated faces."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="LipSync_LoadFaceRestorer",
            display_name="Load Face Restorer",
            category=CATEGORY,
            description="Loads a face restoration network, which sharpens the mouths of 'LipSync "
            "Dub'.",
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
                    tooltip="Downloaded on first use: gfpgan (349 MB; Apache-2.0, except parts for "
                    "non-commercial use), restoreformer (291 MB; Apache-2.0), codeformer (377 MB; "
                    "non-commercial use only; needs spandrel_extra_arches). Others: files in "
                    "models/facerestore_models and models/lipsync.",
                ),
                *option_inputs(Restore, "strength", "mask"),
            ],
            outputs=[Restorer.Output("restorer", tooltip="For 'LipSync Dub'.")],
        )

    @classmethod
    def fingerprint_inputs(cls, network=None, **_):
        """Return a value that changes when the result would."""
        return host.restorer_stamp(network)

    @classmethod
    def execute(cls, network, strength, mask) -> io.NodeOutput:
        """Run the node."""
        return io.NodeOutput(
            Restore(host.restorer(network, host.Progress({"pull": 1})), strength, mask)
        )


class LoadVideos(io.ComfyNode):
    """Load the videos of a folder one after another."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="LipSync_LoadVideos",
            display_name="Load Video Folder",
            category=CATEGORY,
            description="Loads every video of a folder as a list: connected nodes run once per "
            "video. A clip without a face or sound does not stop the others.",
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
                    tooltip="A folder inside ComfyUI's input folder, or 'demo' for the speaking "
                    "clips of Demo Media.",
                ),
                io.Int.Input(
                    "limit",
                    default=0,
                    min=0,
                    max=10000,
                    tooltip="Maximum number of videos; 0: all.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    "videos",
                    tooltip="The videos, sorted by name.",
                    is_output_list=True,
                ),
                io.String.Output("names", tooltip="Their file names.", is_output_list=True),
                io.String.Output(
                    "stems",
                    tooltip="Their names without the ending: connected to 'filename_prefix' of "
                    "'Save Video', each result keeps the name of its source.",
                    is_output_list=True,
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder=None):
        """Return True, or what is wrong with the inputs."""
        try:
            _ = folder in (None, host.DEMO_FOLDER) or host.videos_in(folder)
        except LipSyncError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder=None, **_):
        """Return a value that changes when the result would."""
        return host.folder_stamp(folder)

    @classmethod
    def execute(cls, folder, limit) -> io.NodeOutput:
        """Run the node."""
        from .demo import demo_videos
        from .videos import folder_output

        demo = folder == host.DEMO_FOLDER
        paths = demo_videos(host.Progress(_STAGES)) if demo else host.videos_in(folder)
        paths = paths[: limit or None]
        names, stems = [path.name for path in paths], [path.stem for path in paths]
        return io.NodeOutput([folder_output(path) for path in paths], names, stems)
