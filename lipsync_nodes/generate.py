"""Nodes that dub: blend options, mask preview, generation."""
# pyright: reportUntypedBaseClass=false, reportMissingParameterType=false

from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..lipsync_core.options import Blend, Cut, Encoding
from ..lipsync_core.runtime.options import option_fields
from .options import option_input, option_values
from .sockets import CATEGORY, BlendType, Model, Restorer, Tracks, fps_input, newer


class BlendSettings(io.ComfyNode):
    """Choose how a generated mouth joins its frame."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="LipSync_BlendSettings",
            display_name="Blend Settings",
            category=CATEGORY,
            description="How the generated mouth joins the picture. The defaults are those of "
            "'LipSync Dub' without this node.",
            search_aliases=[
                "lip sync mask",
                "feather",
                "colour match",
                "color match",
                "mouth mask",
                "seamless",
            ],
            inputs=_blend_inputs(),
            outputs=[BlendType.Output("blend", tooltip="For 'LipSync Dub'.")],
        )

    @classmethod
    def execute(cls, colour_match, colour="spread", **inputs) -> io.NodeOutput:
        """Return the chosen options."""
        inputs["colour_match"] = colour if colour_match else None
        return io.NodeOutput(Blend(**option_values(Blend, inputs)))


def _blend_inputs() -> list[Any]:
    """Make the inputs of all options of a blend.

    The first six are required. The others came later and are optional, because workflows saved
    before lack them; new fields of ``Blend`` are added at the end.
    """
    fields = {field.field: field for field in option_fields(Blend)}
    color = fields.pop("colour_match")
    switch = io.Boolean.Input("colour_match", default=False, tooltip=color.option.help)
    kinds = ["seamless", "poisson", "pyramid", "feather", "paste"]
    first = [
        option_input(fields.pop("mask")),
        option_input(fields.pop("kind"), options=kinds),
        option_input(fields.pop("feather")),
        switch,
        option_input(fields.pop("strength")),
        option_input(fields.pop("own_pixels")),
        option_input(fields.pop("feather_px"), max=1000, optional=True),
        option_input(fields.pop("detail"), optional=True),
        option_input(fields.pop("grain"), optional=True),
        io.Combo.Input(
            "colour",
            optional=True,
            options=list(color.choices),
            default=color.choices[0],
            advanced=True,
            tooltip=f"How 'colour_match' does it. {color.option.more}",
        ),
    ]
    return first + [option_input(field, optional=True) for field in fields.values()]


class PreviewMask(io.ComfyNode):
    """Show what would be redrawn."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        return io.Schema(
            node_id="LipSync_PreviewMask",
            display_name="Preview Mask",
            category=CATEGORY,
            description="Shows in nine frames what 'LipSync Dub' would redraw, before it runs.",
            search_aliases=[
                "lip sync mask",
                "mouth mask preview",
                "show mask",
                "face mask",
                "occlusion preview",
            ],
            inputs=[
                io.MultiType.Input(
                    "media",
                    types=[io.Image, io.Video],
                    tooltip="The pictures: a video, an image or a batch of images.",
                ),
                Tracks.Input(
                    "tracks",
                    optional=True,
                    tooltip="Who speaks, from 'Select Face' or 'Detect Faces'. Without it, the "
                    "largest face.",
                ),
                Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model, because models crop faces differently. Without it, the "
                    "bundled 'mini'.",
                ),
                BlendType.Input(
                    "blend", optional=True, tooltip="The mask to show, from 'Blend Settings'."
                ),
            ],
            outputs=[
                io.Image.Output("image", tooltip="Frames with the mask over them, as one picture.")
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, media, tracks=None, model=None, blend=None) -> io.NodeOutput:
        """Run the node."""
        from . import convert, preview

        image = convert.image(preview.draw_masks(media, tracks, model, blend or Blend()))
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


class Wav2LipGenerate(io.ComfyNode):
    """Dub the image or video with the audio."""

    @classmethod
    def define_schema(cls):
        """Describe the node."""
        media = io.MatchType.Template("media", [io.Image, io.Video])
        (crf,), (longer,) = option_fields(Encoding, ("crf",)), option_fields(Cut, ("longer",))
        return io.Schema(
            node_id="LipSync_Wav2LipGenerate",
            display_name="LipSync Dub",
            category=CATEGORY,
            description="Makes the face in a picture or video speak. Videos of any length are read "
            "from and written to files; images stay in memory and are for short clips. The result "
            "is as long as the speech.",
            search_aliases=[
                "wav2lip",
                "lip sync",
                "lipsync",
                "talking head",
                "dub",
                "talking photo",
                "speech to lips",
            ],
            **newer(essentials_category="Video Tools"),
            inputs=[
                io.MatchType.Input(
                    "media",
                    template=media,
                    tooltip="The face to dub: a video, an image or a batch of images. The output "
                    "is of the same kind.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The speech of every face whose 'Select Face' has no audio. Without "
                    "it, the video's own sound.",
                ),
                Tracks.Input(
                    "tracks",
                    optional=True,
                    tooltip="Who speaks, from 'Select Face' or 'Detect Faces'. Without it, the "
                    "largest face.",
                ),
                Model.Input(
                    "model", optional=True, tooltip="Without it, the bundled model 'mini'."
                ),
                BlendType.Input(
                    "blend",
                    optional=True,
                    tooltip="How the mouth joins the picture, from 'Blend Settings'.",
                ),
                fps_input("the images, and of the result"),
                option_input(longer, display_name="if the speech is longer"),
                io.Int.Input(
                    "batch",
                    default=8,
                    min=1,
                    max=128,
                    advanced=True,
                    tooltip="Frames generated at once. Large videos, and little memory, use fewer.",
                ),
                option_input(
                    crf,
                    display_name="video quality (crf)",
                    min=0,
                    max=51,
                    step=0.5,
                    tooltip=f"{crf.option.help} Not for images.",
                ),
                io.Combo.Input(
                    "silence",
                    optional=True,  # like all below: workflows saved before lack them
                    options=["generate", "keep", "close"],
                    default="generate",
                    tooltip="The mouth in pauses of the speech. generate: as the model draws it. "
                    "keep: the old mouth. close: a closed mouth of the same person.",
                ),
                io.Combo.Input(
                    "reference",
                    optional=True,
                    options=["current", "first", "nearest-closed", "auto"],
                    default="auto",
                    advanced=True,
                    tooltip="The frame that a mouth is generated from. auto: with mini, the frames"
                    " of the person whose mouths fit the speech best; with other models, "
                    "as current. current: the frame itself, which shows the old lips. "
                    "first: the first frame of the shot. nearest-closed: the nearest frame"
                    " with a closed mouth.",
                ),
                io.Combo.Input(
                    "speakers",
                    optional=True,
                    options=["chosen", "whoever speaks"],
                    default="chosen",
                    tooltip="chosen: the faces of 'tracks', all the time. whoever speaks: each "
                    "face in its own turns, found by the video's sound and lips. For "
                    "videos only.",
                ),
                Restorer.Input(
                    "restorer",
                    optional=True,
                    tooltip="Sharpens the new mouth afterwards, from 'Load Face Restorer'. Takes "
                    "seconds per frame on a CPU.",
                ),
            ],
            outputs=[
                io.MatchType.Output(
                    media,
                    "media",
                    display_name="media",
                    tooltip="The dubbed media, of the same kind as the input.",
                ),
                io.Audio.Output("audio", tooltip="The speech, exactly as long as the frames."),
                io.Mask.Output(
                    "mask",
                    tooltip="Opacity of the new mouth in each pixel. For images only, because a "
                    "video's mask would not fit in memory.",
                ),
                io.Float.Output(
                    "fps", tooltip="Frames per second of the result, for 'Create Video'."
                ),
                io.String.Output(
                    "report",
                    tooltip="How many frames were dubbed, and every warning; for a clip of a "
                    "folder that cannot be dubbed, why.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, media, fps, crf, audio=None, tracks=None, model=None, **inputs
    ) -> io.NodeOutput:
        """Run the node."""
        from . import dub

        blend = inputs.pop("blend", None) or Blend()
        job = dub.DubJob.of(media, audio, tracks, model, dub.DubSettings(blend, **inputs))
        if isinstance(media, Tensor):
            return io.NodeOutput(*dub.dub_images(media, job, fps=fps))
        return io.NodeOutput(*dub.dub_video(media, job, crf=crf))
