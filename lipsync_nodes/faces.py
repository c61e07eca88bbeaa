"""Who is in the picture, and who of them speaks."""
# pyright: reportUntypedBaseClass=false, reportMissingParameterType=false

from dataclasses import replace

from comfy_api.latest import io

from .sockets import CATEGORY, FORCED, BoundingBox, FaceLandmarks, Tracks, fps_input


class DetectFaces(io.ComfyNode):
    """Everybody in a video or a batch of images."""

    @classmethod
    def define_schema(cls):
        """Describe the node to the host."""
        return io.Schema(
            node_id="LipSync_DetectFaces",
            display_name="Detect Faces",
            category=CATEGORY,
            description="Finds the faces and follows each person from frame to frame, up to the "
            "next cut. The preview numbers them as 'Select Face' counts them.",
            search_aliases=[
                "face detection",
                "face tracking",
                "find faces",
                "face bbox",
                "yunet",
                "s3fd",
            ],
            inputs=[
                io.MultiType.Input(
                    "media",
                    types=[io.Image, io.Video],
                    tooltip="The pictures: a video, an image or a batch of images.",
                ),
                io.Combo.Input(
                    "detector",
                    options=["mini", "yunet", "s3fd"],
                    default="mini",
                    tooltip="mini is bundled. yunet (0.2 MB, MIT; needs OpenCV) and s3fd (90 MB, "
                    "no licence known to us for its weights) are downloaded at the first run.",
                ),
                io.Float.Input(
                    "min_score",
                    default=0.7,
                    min=0.05,
                    max=0.99,
                    step=0.01,
                    tooltip="How sure the detector must be. Lower finds more faces, and more that "
                    "are none.",
                ),
                io.Int.Input(
                    "min_size",
                    default=24,
                    min=1,
                    max=4096,
                    tooltip="Faces whose longer side is smaller than this, in pixels, do not "
                    "count.",
                ),
                io.Int.Input(
                    "every",
                    default=5,
                    min=1,
                    max=100,
                    tooltip="Looks for faces in every n-th frame and follows them in between. "
                    "Lower is slower, and surer where heads move fast.",
                ),
                io.Float.Input(
                    "smoothing",
                    default=0.12,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="Seconds over which a face's place is smoothed. More is calmer, less "
                    "follows quicker.",
                ),
                fps_input("the images"),
                BoundingBox.Input(
                    "bboxes",
                    optional=True,
                    extra_dict=FORCED,
                    tooltip="Takes these boxes in place of detection: one, a list for every frame, "
                    "or lists frame by frame.",
                ),
                FaceLandmarks.Input(
                    "face_landmarks",
                    optional=True,
                    tooltip="Takes these in place of detection, from ComfyUI's own face landmark "
                    "node or from this one.",
                ),
            ],
            outputs=[
                Tracks.Output(
                    "tracks",
                    tooltip="The people, for 'Select Face' and 'LipSync Dub'.",
                ),
                BoundingBox.Output("bboxes", tooltip="The box of every face, frame by frame."),
                io.Int.Output(
                    "count",
                    tooltip="How many people there are; after a cut all people count again.",
                ),
                io.Image.Output(
                    "preview", tooltip="Frames with numbered boxes; at most 16 of a video."
                ),
                io.Mask.Output(
                    "mask",
                    tooltip="1 where the faces are. For images only: a video's is too large.",
                ),
                FaceLandmarks.Output(
                    "face_landmarks",
                    tooltip="102 points of every face, frame by frame, for ComfyUI's own landmark "
                    "nodes.",
                ),
            ],
        )

    @classmethod
    def execute(  # noqa: PLR0913
        cls,
        media,
        detector,
        min_score,
        min_size,
        every,
        smoothing,
        fps,
        bboxes=None,
        face_landmarks=None,
    ) -> io.NodeOutput:
        """Find and follow faces."""
        from ..lipsync_core.pipelines.track_faces import Finding, Pace
        from . import preview

        cache = preview.is_lasting(media)
        finding = Finding(detector, min_score, cache, Pace(every, smoothing), min_size)
        return io.NodeOutput(*preview.detect_faces(media, fps, finding, bboxes, face_landmarks))


class SelectFace(io.ComfyNode):
    """One more speaker."""

    @classmethod
    def define_schema(cls):
        """Describe the node to the host."""
        return io.Schema(
            node_id="LipSync_SelectFace",
            display_name="Select Face",
            category=CATEGORY,
            description="Chooses who speaks. Chain several for several speakers, each with an "
            "audio of their own.",
            search_aliases=[
                "choose face",
                "pick speaker",
                "two speakers",
                "face index",
                "multiple faces",
            ],
            inputs=[
                Tracks.Input(
                    "tracks",
                    tooltip="From 'Detect Faces', or from another 'Select Face' to add a speaker.",
                ),
                io.Combo.Input(
                    "rule",
                    options=["largest", "left", "right", "index", "point", "like image"],
                    default="largest",
                    tooltip="largest, leftmost or rightmost face; by number; nearest to a point; "
                    "or the person of a picture.",
                ),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=999,
                    tooltip="For 'index': the number in the preview of 'Detect Faces', from 0, "
                    "left to right.",
                ),
                io.Int.Input(
                    "x", default=0, min=0, max=16384, tooltip="For 'point': pixels from the left."
                ),
                io.Int.Input(
                    "y", default=0, min=0, max=16384, tooltip="For 'point': pixels from the top."
                ),
                io.Image.Input(
                    "reference", optional=True, tooltip="For 'like image': a picture of the person."
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="What this person says. Without it, the audio of 'LipSync Dub "
                    "(Wav2Lip)'.",
                ),
            ],
            outputs=[Tracks.Output("tracks", tooltip="The same people, one more of whom speaks.")],
        )

    @classmethod
    def execute(cls, tracks, rule, index, x, y, reference=None, audio=None) -> io.NodeOutput:
        """Add a chosen face to the speakers."""
        from . import convert, preview
        from .types import Speaker

        track = preview.select_track(tracks, rule, index=index, point=(x, y), reference=reference)
        preview.refuse_second_choice(tracks, track)
        speaker = Speaker(track, None if audio is None else convert.audio(audio))
        return io.NodeOutput(replace(tracks, speakers=(*tracks.speakers, speaker)))
