"""Lips that move."""
# pyright: reportUntypedBaseClass=false, reportMissingParameterType=false

from comfy_api.latest import io, ui
from torch import Tensor

from ..lipsync_core.blend.blender import Blend
from ..lipsync_core.blend.color_match import ColorMatch
from . import convert, dub, preview
from .sockets import CATEGORY, BlendType, Model, Restorer, Tracks, fps_input


class BlendSettings(io.ComfyNode):
    """How a generated mouth joins its frame."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LipSync_BlendSettings",
            display_name="Blend Settings",
            category=CATEGORY,
            description="How the generated mouth joins the picture. The defaults are those of 'Generate Lip Sync (Wav2Lip)' "
            "without this node.",
            search_aliases=[
                "lip sync mask",
                "feather",
                "colour match",
                "color match",
                "mouth mask",
                "seamless",
            ],
            inputs=[
                io.Combo.Input(
                    "mask",
                    options=["mouth", "lower", "face", "box"],
                    default="mouth",
                    tooltip="How much of the face is replaced: mouth and chin, its lower half, the whole face, or the square.",
                ),
                io.Combo.Input(
                    "blend",
                    options=["seamless", "poisson", "pyramid", "feather", "paste"],
                    default="seamless",
                    tooltip="seamless: nothing to be seen at the edge. poisson, pyramid: what it is made of, each alone. "
                    "feather: a soft edge. paste: a hard one.",
                ),
                io.Float.Input(
                    "feather",
                    default=0.08,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    tooltip="Width of the soft edge, as a part of the face's size.",
                ),
                io.Boolean.Input(
                    "colour_match",
                    default=False,
                    tooltip="Brings the generated skin to the colour and contrast of the frame's.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="1 shows the generated mouth, 0 the old one; between them the two are mixed.",
                ),
                io.Boolean.Input(
                    "own_pixels",
                    default=True,
                    advanced=True,
                    tooltip="Moves the frame's own pixels where the model can (mini): large faces stay sharp.",
                ),
                io.Float.Input(
                    "feather_px",
                    optional=True,  # as what follows is: workflows from before know nothing of it
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=1.0,
                    advanced=True,
                    tooltip="Width of the soft edge in pixels of the picture, instead of 'feather'; 0 takes 'feather'.",
                ),
                io.Float.Input(
                    "detail",
                    optional=True,
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much of the picture's own sharpness a drawn mouth gets. mini moves the picture's own pixels, "
                    "which have theirs.",
                ),
                io.Float.Input(
                    "grain",
                    optional=True,
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="How much of the picture's own grain a drawn mouth gets.",
                ),
                io.Combo.Input(
                    "colour",
                    optional=True,
                    options=["spread", "covariance"],
                    default="spread",
                    advanced=True,
                    tooltip="How 'colour_match' does it. spread: brightness and colours one by one. covariance: as they go "
                    "together, for coloured light.",
                ),
                io.Combo.Input(
                    "occlusion",
                    optional=True,
                    options=["ignore", "compare", "parse"],
                    default="ignore",
                    tooltip="Keeps what lies before the mouth: hands, microphones, hair. compare: finds it by a picture of the "
                    "same face without it. parse: by a face parser (53 MB, downloaded at the first run; non-commercial "
                    "research only), which also keeps the mask to skin and lips.",
                ),
                io.Float.Input(
                    "steady",
                    optional=True,
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="How much of a drawn mouth's trembling is taken off. Lips that move are left alone.",
                ),
            ],
            outputs=[BlendType.Output("blend", tooltip="For 'Generate Lip Sync (Wav2Lip)'.")],
        )

    @classmethod
    def execute(
        cls, mask, blend, colour_match, feather_px=0.0, colour: ColorMatch = "spread", **same
    ) -> io.NodeOutput:
        match = colour if colour_match else None
        return io.NodeOutput(
            Blend(mask, blend, colour_match=match, feather_px=feather_px or None, **same)
        )


class PreviewMask(io.ComfyNode):
    """What would be redrawn."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LipSync_PreviewMask",
            display_name="Preview Mask",
            category=CATEGORY,
            description="Shows what 'Generate Lip Sync (Wav2Lip)' would redraw, in nine frames, before anything is drawn.",
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
                    tooltip="Who speaks, from 'Select Face' or 'Detect Faces'. Without it, the largest face.",
                ),
                Model.Input(
                    "model",
                    optional=True,
                    tooltip="Models look at faces in their own ways. Without it, the bundled 'mini'.",
                ),
                BlendType.Input(
                    "blend", optional=True, tooltip="Whose mask is shown, from 'Blend Settings'."
                ),
            ],
            outputs=[
                io.Image.Output("image", tooltip="Frames with the mask over them, as one picture.")
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, media, tracks=None, model=None, blend=None) -> io.NodeOutput:
        image = convert.image(preview.draw_masks(media, tracks, model, blend or Blend()))
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


class Wav2LipGenerate(io.ComfyNode):
    """The picture speaks the sound."""

    @classmethod
    def define_schema(cls):
        media = io.MatchType.Template("media", [io.Image, io.Video])
        return io.Schema(
            node_id="LipSync_Wav2LipGenerate",
            display_name="Generate Lip Sync (Wav2Lip)",
            category=CATEGORY,
            description="Makes the face in a picture or video speak. A video goes from file to file, whatever its length; "
            "images stay in memory and are for short clips. The result is as long as the speech.",
            search_aliases=[
                "wav2lip",
                "lip sync",
                "lipsync",
                "talking head",
                "dub",
                "talking photo",
                "speech to lips",
            ],
            inputs=[
                io.MatchType.Input(
                    "media",
                    template=media,
                    tooltip="Who speaks: a video, an image or a batch of images. The same kind comes out.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The speech of everybody whose 'Select Face' has no audio of its own. Without it, the video's own "
                    "sound.",
                ),
                Tracks.Input(
                    "tracks",
                    optional=True,
                    tooltip="Who speaks, from 'Select Face' or 'Detect Faces'. Without it, the largest face.",
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
                io.Combo.Input(
                    "longer",
                    options=["pingpong", "loop", "hold", "trim"],
                    default="pingpong",
                    tooltip="Where the speech is longer than the picture: play it forwards and backwards, start it again, stay "
                    "on its last frame, or stop with it.",
                ),
                io.Int.Input(
                    "batch",
                    default=8,
                    min=1,
                    max=128,
                    advanced=True,
                    tooltip="Frames generated at once; fewer of large videos, and where the memory does not suffice.",
                ),
                io.Float.Input(
                    "crf",
                    default=18.0,
                    min=0.0,
                    max=51.0,
                    step=0.5,
                    advanced=True,
                    tooltip="Quality of a video's H.264: lower is better and larger. Not used for images.",
                ),
                io.Combo.Input(
                    "silence",
                    optional=True,  # as what follows is: workflows from before know nothing of it
                    options=["generate", "keep", "close"],
                    default="generate",
                    tooltip="The mouth while nobody speaks. generate: what the model makes of silence. keep: the old one. "
                    "close: a closed one of the same person.",
                ),
                io.Combo.Input(
                    "reference",
                    optional=True,
                    options=["current", "first", "nearest-closed", "auto"],
                    default="auto",
                    advanced=True,
                    tooltip="The picture that a mouth is made of. current: the frame itself, which shows the old lips. "
                    "first: the first one of the shot. nearest-closed: the nearest in which the mouth is closed. auto: with "
                    "mini the mouths of the same person that suit the speech best, with other models the frame itself.",
                ),
                io.Combo.Input(
                    "speakers",
                    optional=True,
                    options=["chosen", "whoever speaks"],
                    default="chosen",
                    tooltip="chosen: whom 'tracks' name, all the time. whoever speaks: everybody in their own turns, as the "
                    "video's own sound and lips tell. For videos only.",
                ),
                Restorer.Input(
                    "restorer",
                    optional=True,
                    tooltip="Restores the new mouth afterwards, from 'Load Face Restorer'. Many seconds a face on a CPU.",
                ),
            ],
            outputs=[
                io.MatchType.Output(
                    media,
                    "media",
                    display_name="media",
                    tooltip="The same kind as went in, speaking.",
                ),
                io.Audio.Output("audio", tooltip="The sound, exactly as long as the frames."),
                io.Mask.Output(
                    "mask",
                    tooltip="How much of each pixel changed. For images only: a video's is too large.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        media,
        fps,
        longer,
        batch,
        crf,
        audio=None,
        tracks=None,
        model=None,
        blend=None,
        restorer=None,
        **wishes,
    ) -> io.NodeOutput:
        wishes = dub.DubSettings(blend or Blend(), longer, batch, restorer, **wishes)
        job = dub.DubJob.of(media, audio, tracks, model, wishes)
        if isinstance(media, Tensor):
            return io.NodeOutput(*dub.dub_images(media, job, fps=fps))
        return io.NodeOutput(*dub.dub_video(media, job, crf=crf))
