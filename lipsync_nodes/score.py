"""Nodes that measure and correct the sync of lips and sound."""
# pyright: reportUntypedBaseClass=false, reportMissingParameterType=false

from comfy_api.latest import io

from .sockets import CATEGORY, fps_input


class SyncScore(io.ComfyNode):
    """Score how well lips and sound agree."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="LipSync_SyncScore",
            display_name="Score LipSync",
            category=CATEGORY,
            description="Measures whether lips and sound agree, and by how much one is late. "
            "'Shift Audio' corrects it.",
            search_aliases=[
                "lip sync score",
                "lse-d",
                "lse-c",
                "syncnet",
                "sync offset",
                "av sync",
                "audio delay",
            ],
            inputs=[
                io.MultiType.Input(
                    "media",
                    types=[io.Image, io.Video],
                    tooltip="A video or a batch of images, half a second or more.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The sound to compare with. Without it, the video's own.",
                ),
                fps_input("the images"),
                io.Combo.Input(
                    "scorer",
                    options=["judge", "syncnet"],
                    default="judge",
                    tooltip="judge: bundled. syncnet (55 MB, no licence known for its weights): "
                    "the scorer of papers, downloaded on first use. Figures of the two "
                    "cannot be compared.",
                ),
                io.Float.Input(
                    "search_seconds",
                    default=0.6,
                    min=0.1,
                    max=20.0,
                    step=0.1,
                    optional=True,
                    tooltip="How far to each side the offset is searched, in seconds.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    "offset",
                    tooltip="In frames at 25 fps. Above 0 the sound is early: delay it by this "
                    "much.",
                ),
                io.Float.Output("offset_ms", tooltip="The offset in milliseconds."),
                io.Float.Output(
                    "lse_d",
                    display_name="LSE-D",
                    tooltip="Distance of lips and sound; lower is better.",
                ),
                io.Float.Output(
                    "lse_c", display_name="LSE-C", tooltip="Confidence; higher is better."
                ),
                io.Image.Output(
                    "plot",
                    tooltip="Confidence over time, and the curve that gave the offset.",
                ),
                io.String.Output("verdict", tooltip="The result in words, or why there is none."),
            ],
        )

    @classmethod
    def execute(cls, media, fps, scorer, audio=None, search_seconds=0.6) -> io.NodeOutput:
        """Run the node."""
        from . import scoring

        return io.NodeOutput(
            *scoring.score_media(
                media, audio, fps=fps, scorer=scorer, search_seconds=search_seconds
            )
        )


class ShiftAudio(io.ComfyNode):
    """Move sound to an earlier or later time."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="LipSync_ShiftAudio",
            display_name="Shift Audio",
            category=CATEGORY,
            description="Delays or advances sound, for example by the offset of 'Score LipSync'. "
            "The length stays; silence fills the gap.",
            search_aliases=[
                "delay audio",
                "advance audio",
                "fix sync",
                "audio offset",
                "sync audio",
            ],
            inputs=[
                io.Audio.Input("audio", tooltip="The sound to move."),
                io.Float.Input(
                    "amount",
                    default=0.0,
                    min=-3600000.0,
                    max=3600000.0,
                    step=0.01,
                    tooltip="Above 0 delays the sound, below 0 advances it.",
                ),
                io.Combo.Input(
                    "unit",
                    options=["frames", "ms"],
                    default="frames",
                    tooltip="Unit of the amount; the offset of 'Score LipSync' is in frames.",
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=120.0,
                    step=0.001,
                    tooltip="Frames per second of the amount. 'Score LipSync' always counts 25 "
                    "per second.",
                ),
            ],
            outputs=[io.Audio.Output("audio", tooltip="The moved sound, as long as before.")],
        )

    @classmethod
    def execute(cls, audio, amount, unit, fps) -> io.NodeOutput:
        """Run the node."""
        from . import scoring

        return io.NodeOutput(scoring.shifted(audio, amount, unit, fps))


class SetAudio(io.ComfyNode):
    """Replace the sound of a video."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="LipSync_SetAudio",
            display_name="Set Video Audio",
            category=CATEGORY,
            description="Replaces the sound of a video. The picture is copied without encoding it "
            "again, unless the video is trimmed.",
            search_aliases=[
                "replace audio",
                "mux audio",
                "add sound to video",
                "merge audio and video",
            ],
            inputs=[
                io.Video.Input("video", tooltip="The video whose picture is kept."),
                io.Audio.Input("audio", tooltip="The new sound."),
            ],
            outputs=[io.Video.Output("video", tooltip="The video with the new sound.")],
        )

    @classmethod
    def execute(cls, video, audio) -> io.NodeOutput:
        """Run the node."""
        from . import convert, host
        from .videos import result_output, video_source, with_sound

        out = with_sound(video_source(video), convert.audio(audio), host.Progress({"write": 1}))
        return io.NodeOutput(result_output(out))
