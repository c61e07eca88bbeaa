"""Do lips and sound agree, and what to do where they do not."""
# pyright: reportUntypedBaseClass=false, reportMissingParameterType=false

from comfy_api.latest import io

from ..lipsync_core.audio.ops import shifted
from ..lipsync_core.media.clip import Cut
from ..lipsync_core.pipelines.score import ScoreReport, TrackScore, explain_score, score
from ..lipsync_core.pipelines.score_plot import draw_scores
from ..lipsync_core.pipelines.track_faces import Finding
from ..lipsync_core.types import Audio
from . import convert, host
from .sockets import CATEGORY, fps_input
from .videos import VideoSource, media_source, video_output, video_source, with_sound

_JUDGE_FPS = 25  # frames a second in which offsets are told, whatever the video has
_WORKING_BYTES = 2 << 30  # of a scorer, its detector and their batches; measured below 1.5 GB


class SyncScore(io.ComfyNode):
    """How well lips and sound agree."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LipSync_SyncScore",
            display_name="Score Lip Sync",
            category=CATEGORY,
            description="Whether lips and sound agree, and by how much they are apart. 'Shift Audio' mends what it finds.",
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
                    tooltip="judge is ours and bundled. syncnet (55 MB, no licence known to us for its weights) is downloaded "
                    "at the first run. Papers measure with it; its figures and the judge's do not compare.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    "offset",
                    tooltip="In frames of 25 a second. Above 0 the sound is early: delay it so much.",
                ),
                io.Float.Output("offset_ms", tooltip="The same in milliseconds."),
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
                    tooltip="Confidence over time, and the curve that the offset was read from.",
                ),
                io.String.Output("verdict", tooltip="The result in words, or why there is none."),
            ],
        )

    @classmethod
    def execute(cls, media, fps, scorer, audio=None) -> io.NodeOutput:
        progress = host.Progress({"pull": 1, "find faces": 4, "score": 6})
        if scorer != "judge":
            host.pulled(scorer, progress)
        host.make_room(_WORKING_BYTES)
        with media_source(media, fps) as source:
            report = _report(source, audio, scorer, progress)
        told = _told(report).score
        offset_ms = told.offset_ms or 0.0
        offset = offset_ms * _JUDGE_FPS / 1000
        plot = convert.image(draw_scores(report))
        return io.NodeOutput(
            offset, offset_ms, told.distance, told.confidence, plot, _words(report)
        )


def _report(source: VideoSource, audio, scorer: str, progress: host.Progress) -> ScoreReport:
    sound = source.sound if audio is None else convert.audio(audio)
    if sound is None:
        sound = source.audio()  # raises
    return score(
        source.path,
        sound if isinstance(sound, Audio) else None,
        scorer=scorer,
        cut=Cut(source.start, source.end),
        finding=Finding(cache=source.lasting),
        device=str(host.device()),
        on_progress=progress,
    )


def _told(report: ScoreReport) -> TrackScore:
    """The face whose figures are told: the surest one, else the one seen longest."""
    if any(track.score.offset_frames is not None for track in report.tracks):
        return report.best()
    return max(report.tracks, key=lambda track: track.last_frame - track.first_frame)


def _words(report: ScoreReport) -> str:
    lines = [explain_score(track.score, report.fps) for track in report.tracks]
    if len(lines) > 1:
        faces = zip(report.tracks, lines, strict=True)
        lines = [
            f"face at {f.centre[0]},{f.centre[1]}, frames {f.first_frame}-{f.last_frame}: {line}"
            for f, line in faces
        ]
    return "\n".join([*lines, *report.warnings])


class ShiftAudio(io.ComfyNode):
    """Sound earlier or later."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LipSync_ShiftAudio",
            display_name="Shift Audio",
            category=CATEGORY,
            description="Delays or advances sound; its length stays, silence fills the gap. Takes what 'Score Lip Sync' found.",
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
    def execute(cls, audio, amount, unit, fps) -> io.NodeOutput:
        delay = convert.seconds(amount) / (convert.rate(fps) if unit == "frames" else 1000)
        return io.NodeOutput(convert.audio_value(shifted(convert.audio(audio), delay)))


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
            search_aliases=[
                "replace audio",
                "mux audio",
                "add sound to video",
                "merge audio and video",
            ],
            inputs=[
                io.Video.Input("video", tooltip="The video whose picture is kept."),
                io.Audio.Input("audio", tooltip="The sound that it gets."),
            ],
            outputs=[io.Video.Output("video", tooltip="The video with that sound.")],
        )

    @classmethod
    def execute(cls, video, audio) -> io.NodeOutput:
        out = with_sound(video_source(video), convert.audio(audio), host.Progress({"write": 1}))
        return io.NodeOutput(video_output(out))
