"""Do lips and sound agree, and what to do where they do not."""

from comfy_api.latest import io

from .sockets import CATEGORY, fps_input


class SyncScore(io.ComfyNode):
    """How well lips and sound agree."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LipSync_SyncScore",
            display_name="Score Lip Sync",
            category=CATEGORY,
            description="Whether lips and sound agree, and by how much they are apart. 'Shift Audio' mends what it finds.",
            search_aliases=["lip sync score", "lse-d", "lse-c", "syncnet", "sync offset", "av sync", "audio delay"],
            inputs=[
                io.MultiType.Input(
                    "media",
                    types=[io.Image, io.Video],
                    tooltip="A video or a batch of images, half a second or more.",
                ),
                io.Audio.Input(
                    "audio", optional=True, tooltip="The sound to compare with. Without it, the video's own."
                ),
                fps_input("the images"),
                io.Combo.Input(
                    "scorer",
                    options=["judge", "syncnet"],
                    default="judge",
                    tooltip="judge is ours and bundled. syncnet (55 MB, no licence known to us for its weights) is downloaded "
                    "at the first run; its figures are those of papers, and do not compare with the judge's.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    "offset",
                    tooltip="In frames of 25 a second. Above 0 the sound is early: delay it so much.",
                ),
                io.Float.Output("offset_ms", tooltip="The same in milliseconds."),
                io.Float.Output("lse_d", display_name="LSE-D", tooltip="Distance of lips and sound; lower is better."),
                io.Float.Output("lse_c", display_name="LSE-C", tooltip="Confidence; higher is better."),
                io.Image.Output("plot", tooltip="Confidence over time, and the curve that the offset was read from."),
                io.String.Output("verdict", tooltip="The result in words, or why there is none."),
            ],
        )

    @classmethod
    def execute(cls, media, fps: float, scorer: str, audio=None) -> io.NodeOutput:
        raise NotImplementedError("Score Lip Sync is not written yet")


class ShiftAudio(io.ComfyNode):
    """Sound earlier or later."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LipSync_ShiftAudio",
            display_name="Shift Audio",
            category=CATEGORY,
            description="Delays or advances sound; its length stays, silence fills the gap. Takes what 'Score Lip Sync' found.",
            search_aliases=["delay audio", "advance audio", "fix sync", "audio offset", "sync audio"],
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
                    tooltip="What the amount counts in; the offset of 'Score Lip Sync' is in frames.",
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=120.0,
                    step=0.001,
                    tooltip="How many of these frames a second has. 'Score Lip Sync' counts 25, whatever the video has.",
                ),
            ],
            outputs=[io.Audio.Output("audio", tooltip="The moved sound, as long as before.")],
        )

    @classmethod
    def execute(cls, audio, amount: float, unit: str, fps: float) -> io.NodeOutput:
        raise NotImplementedError("Shift Audio is not written yet")


class SetAudio(io.ComfyNode):
    """A video with other sound."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LipSync_SetAudio",
            display_name="Set Video Audio",
            category=CATEGORY,
            description="Gives a video other sound. Its picture is copied as it is, not encoded again; only a trimmed "
            "video's is.",
            search_aliases=["replace audio", "mux audio", "add sound to video", "merge audio and video"],
            inputs=[
                io.Video.Input("video", tooltip="The video whose picture is kept."),
                io.Audio.Input("audio", tooltip="The sound that it gets."),
            ],
            outputs=[io.Video.Output("video", tooltip="The video with that sound.")],
        )

    @classmethod
    def execute(cls, video, audio) -> io.NodeOutput:
        raise NotImplementedError("Set Video Audio is not written yet")
