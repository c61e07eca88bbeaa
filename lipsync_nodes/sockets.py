"""Socket types that ComfyUI lacks, or that its oldest supported version lacks."""

from comfy_api.latest import io

Tracks = io.Custom("LIPSYNC_TRACKS")
Model = io.Custom("LIPSYNC_MODEL")
BlendType = io.Custom("LIPSYNC_BLEND")
Restorer = io.Custom("LIPSYNC_RESTORER")
# Native since ComfyUI 0.15 and 0.22; the oldest supported version has neither. A native
# BOUNDING_BOX input is a widget, hence FORCED.
BoundingBox = io.Custom("BOUNDING_BOX")
FaceLandmarks = io.Custom("FACE_LANDMARKS")

FORCED = {"forceInput": True}
CATEGORY = "LipSync"


def newer(**given: str) -> dict[str, str]:
    """Return those arguments of ``io.Schema`` that this host knows."""
    known = getattr(io.Schema, "__dataclass_fields__", {})
    return {name: value for name, value in given.items() if name in known}


def fps_input(what: str) -> io.Float.Input:
    """Make the input for the frame rate of an IMAGE batch."""
    return io.Float.Input(
        "fps",
        default=25.0,
        min=1.0,
        max=120.0,
        step=0.001,
        tooltip=f"Frames per second of {what}. Not used for a video, which brings its own rate.",
    )
