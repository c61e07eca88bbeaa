"""Nodes that measure and correct the sync of lips and sound."""
# pyright: reportUntypedBaseClass=false, reportMissingParameterType=false

from comfy_api.latest import io

from ..lipsync_core.audio.ops import shift
from ..lipsync_core.media.clip import Cut
from ..lipsync_core.pipelines.score import ScoreReport, TrackScore, explain_score, score
from ..lipsync_core.pipelines.score_plot import draw_scores
from ..lipsync_core.pipelines.track_faces import Finding
from ..lipsync_core.types import Audio
from . import convert, host
from .sockets import CATEGORY, fps_input
from .videos import VideoSource, media_source, video_output, video_source, with_sound

_JUDGE_FPS = 25  # offsets are given in frames of this rate, whatever the rate of the video
_WORKING_BYTES = 2 << 30  # of a scorer, its detector and their batches; measured below 1.5 GB


class SyncScore(io.ComfyNode):
    """Score how well lips and sound agree."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="LipSync_SyncScore",
            display_name="Score Lip Sync",
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
    def execute(cls, media, fps, scorer, audio=None) -> io.NodeOutput:
        """Run the node."""
        progress = host.Progress({"pull": 1, "find faces": 4, "score": 6})
        if scorer != "judge":
            host.pull_weights(scorer, progress)
        host.free_device_memory(_WORKING_BYTES)
        with media_source(media, fps) as source:
            report = _report(source, audio, scorer, progress)
        best = _best_track(report).score
        offset_ms = best.offset_ms or 0.0
        offset = offset_ms * _JUDGE_FPS / 1000
        plot = convert.image(draw_scores(report))
        return io.NodeOutput(
            offset, offset_ms, best.distance, best.confidence, plot, _words(report)
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


def _best_track(report: ScoreReport) -> TrackScore:
    """The face with the highest confidence, else the one visible longest."""
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
    """Move sound to an earlier or later time."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="LipSync_ShiftAudio",
            display_name="Shift Audio",
            category=CATEGORY,
            description="Delays or advances sound, for example by the offset of 'Score Lip Sync'. "
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
                    tooltip="Unit of the amount; the offset of 'Score Lip Sync' is in frames.",
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=120.0,
                    step=0.001,
                    tooltip="Frames per second of the amount. 'Score Lip Sync' always counts 25 "
                    "per second.",
                ),
            ],
            outputs=[io.Audio.Output("audio", tooltip="The moved sound, as long as before.")],
        )

    @classmethod
    def execute(cls, audio, amount, unit, fps) -> io.NodeOutput:
        """Run the node."""
        delay = convert.seconds(amount) / (convert.rate(fps) if unit == "frames" else 1000)
        return io.NodeOutput(convert.audio_value(shift(convert.audio(audio), delay)))


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
        out = with_sound(video_source(video), convert.audio(audio), host.Progress({"write": 1}))
        return io.NodeOutput(video_output(out))
