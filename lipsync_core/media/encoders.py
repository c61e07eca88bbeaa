"""Choose what an FFmpeg encoder is given: its pixel format and the options for its quality."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av
from av.codec import Codec
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat
from av.video.stream import VideoStream

from ..errors import MediaError

H264 = "libx264"
DEFAULT_CODECS = {".webm": "libvpx-vp9"}
DEFAULT_CRF = 18.0
DEFAULT_PRESET = "veryfast"

# What an encoder gets if it has it, the best first: 4:2:0 is what every player shows.
_PIXEL_FORMATS = (
    *("yuv420p", "nv12", "yuvj420p", "yuv422p", "yuvj422p", "yuv422p10le", "yuv444p"),
    *("gbrp", "rgb24", "bgr0", "bgra", "argb"),
)
# Encoders that have one of these, but are asked for to get another.
_OWN_FORMATS = {"libx264rgb": "rgb24", "ffv1": "bgr0", "png": "rgb24", "mjpeg": "yuvj420p"}
_CONTAINERS = {".mp4": "mp4", ".m4v": "ipod", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
# Codecs whose own data hold the shape of the pixels, which PyAV (18.1) cannot tell Matroska.
_HOLD_ASPECT = frozenset({"h264", "hevc", "mpeg4", "mjpeg", "mpeg1video", "mpeg2video"})
_X26X_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
_NVENC_PRESETS = tuple(f"p{n}" for n in range(1, 8))
_SVT_PRESETS = tuple(str(n) for n in range(14))
_TRIAL_SIZE = (256, 128)  # px: DNxHR takes no smaller ones
_QUANTIZERS = (2, 31)


@dataclass(frozen=True, slots=True)
class _Quality:
    """How encoders whose names begin alike take their quality and speed.

    Attributes:
        begins: the beginning of their names.
        highest: the largest ``crf``; 0 if they have none.
        options: FFmpeg's options for a ``crf``.
        presets: names of speeds; empty if they have none.
    """

    begins: str
    highest: float
    options: Callable[[float], dict[str, str]]
    presets: tuple[str, ...] = ()


def _crf(crf: float) -> dict[str, str]:
    return {"crf": f"{crf:g}"}


def _quantizer(crf: float) -> dict[str, str]:
    """The quantizer of MPEG-4 and older codecs for a ``crf``: 3 for 18."""
    low, high = _QUANTIZERS
    value = str(min(max(round(crf / 6), low), high))
    return {"qmin": value, "qmax": value}


_QUALITIES = (
    _Quality("libx264", 51, _crf, _X26X_PRESETS),
    _Quality(
        "libx265",
        51,
        lambda crf: {**_crf(crf), "x265-params": "log-level=error"},
        _X26X_PRESETS,
    ),
    _Quality(
        "libvpx-vp9",
        63,
        lambda crf: {**_crf(crf), "deadline": "good", "cpu-used": "4", "row-mt": "1"},
    ),
    # a bit rate is the upper limit of VP8's crf, and 256 kb/s by default
    _Quality(
        "libvpx", 63, lambda crf: {**_crf(crf), "b": "100M", "deadline": "good", "cpu-used": "4"}
    ),
    _Quality("libsvtav1", 63, _crf, _SVT_PRESETS),
    _Quality("libaom-av1", 63, lambda crf: {**_crf(crf), "cpu-used": "6", "row-mt": "1"}),
    *(
        _Quality(name, 51, lambda crf: {"rc": "vbr", "cq": f"{crf:g}", "b": "0"}, _NVENC_PRESETS)
        for name in ("h264_nvenc", "hevc_nvenc", "av1_nvenc")
    ),
    *(_Quality(name, 51, _quantizer) for name in ("mpeg4", "mpeg2video", "mjpeg")),
    _Quality("dnxhd", 0, lambda _: {"profile": "dnxhr_hq"}),
    _Quality("", 0, lambda _: {}),
)


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder and what it is given.

    Attributes:
        name: FFmpeg's name of it.
        pixel_format: FFmpeg's name of the format of its frames.
        options: its options.
        warnings: what of the wanted quality and speed it does not have.
    """

    name: str
    pixel_format: str
    options: dict[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def is_rgb(self) -> bool:
        """Whether the frames are RGB."""
        return VideoFormat(self.pixel_format).is_rgb

    @property
    def full_range(self) -> bool:
        """Whether the frames are YUV of the full range whatever the source is."""
        return self.pixel_format.startswith("yuvj")

    @property
    def matrix(self) -> int | None:
        """The color matrix that the codec assumes whatever the tags say; None for none."""
        return 1 if self.name == "dnxhd" else None

    def padding(self, width: int, height: int) -> tuple[int, int]:
        """Return by how many (rows, columns) frames of this size must grow for their chroma."""
        chroma = VideoFormat(self.pixel_format, 2, 2)
        return (
            height % 2 if chroma.chroma_height() == 1 else 0,
            width % 2 if chroma.chroma_width() == 1 else 0,
        )


def keeps_aspect(container: str, codec: str) -> bool:
    """Return whether pixels that are not square keep their shape in a file.

    Args:
        container: FFmpeg's name of the container.
        codec: FFmpeg's name of the codec.
    """
    return container not in ("matroska", "webm") or codec in _HOLD_ASPECT


def choose_encoder(
    suffix: str,
    codec: str | None = None,
    crf: float = DEFAULT_CRF,
    preset: str = DEFAULT_PRESET,
    *,
    repeatable: bool = False,
) -> Encoder:
    """Choose what an encoder is given.

    Args:
        suffix: the file's, which decides the default codec.
        codec: an FFmpeg encoder; None for the container's default.
        crf: quality, from 0 for the best to 51 (63 for VP8, VP9 and AV1); for NVENC its ``cq``,
            for MPEG-4, MPEG-2 and MJPEG six times the quantizer.
        preset: speed: ultrafast to placebo for x264 and x265, p1 to p7 for NVENC, 0 to 13 for
            SVT-AV1.
        repeatable: see ``VideoWriter``.

    Returns:
        The encoder.

    Raises:
        MediaError: If there is no such encoder.
        ValueError: If it encodes no pictures, or quality or speed are out of its range.
    """
    name = codec or DEFAULT_CODECS.get(suffix, H264)
    pixel_format = _pixel_format(name)
    quality = next(one for one in _QUALITIES if name.startswith(one.begins))
    highest = quality.highest or max(one.highest for one in _QUALITIES)
    if not 0 <= crf <= highest:
        raise ValueError(f"the crf is {crf:g}; expected 0 (best) to {highest:g} for {name}")
    options, warnings = quality.options(crf), list[str]()
    if not quality.highest and crf != DEFAULT_CRF:
        warnings.append(f"the encoder {name} has no crf; its own quality is used")
    if preset in quality.presets:
        options["preset"] = preset
    elif preset != DEFAULT_PRESET:
        if quality.presets:
            raise ValueError(
                f"{preset!r} is not a preset of the encoder {name}; expected one of "
                f"{', '.join(quality.presets)}"
            )
        warnings.append(f"the encoder {name} has no presets; its own speed is used")
    if repeatable and name == H264:
        options["x264-params"] = "no-mbtree=1"
    return Encoder(name, pixel_format, options, tuple(warnings))


def _pixel_format(name: str) -> str:
    try:
        codec = Codec(name, "w")
    except UnknownCodecError as error:
        raise MediaError(
            f"there is no encoder {name!r} in this build of FFmpeg; expected one such as libx264, "
            "libx265, libvpx-vp9, libsvtav1, prores_ks or ffv1"
        ) from error
    if codec.type != "video":
        raise ValueError(f"{name} encodes {codec.type}; expected a picture encoder such as libx264")
    offered = [one.name for one in codec.video_formats or ()]
    wanted = (_OWN_FORMATS.get(name, ""), *_PIXEL_FORMATS)
    found = next((one for one in wanted if one in offered), None)
    if found is None and offered:
        raise ValueError(
            f"the encoder {name} takes frames as {', '.join(offered)} only; choose another, such "
            "as libx264"
        )
    return found or _PIXEL_FORMATS[0]


def check_encoder(suffix: str, codec: str | None, crf: float, preset: str) -> None:
    """Check that pictures can be encoded here, before anything is loaded.

    Args:
        suffix: that of the file to write, in lower case.
        codec: see ``choose_encoder``.
        crf: see ``choose_encoder``.
        preset: see ``choose_encoder``.

    Raises:
        ValueError: See ``choose_encoder``.
        MediaError: If there is no such encoder, the container does not take it, or it cannot be
            opened.
    """
    encoder = choose_encoder(suffix, codec, crf, preset)
    with av.open(io.BytesIO(), "w", format=_CONTAINERS[suffix]) as out:
        stream = add_picture(out, encoder, Fraction(25), f"the {suffix} file")
        stream.width, stream.height = _TRIAL_SIZE
        open_encoder(stream.codec_context, encoder, f"the {suffix} file")


def add_picture(out: OutputContainer, encoder: Encoder, fps: Fraction, where: str) -> VideoStream:
    """Add a stream for ``encoder`` to ``out``.

    Args:
        out: the container.
        encoder: the encoder.
        fps: frames per second.
        where: what is written, for the message.

    Returns:
        The stream, whose encoder is not open yet.

    Raises:
        MediaError: If the container does not take the codec.
    """
    try:
        stream = out.add_stream(encoder.name, fps, options=dict(encoder.options))
    except ValueError as error:
        raise MediaError(
            f"{where}: the codec {encoder.name} cannot be written here ({error}); choose another "
            "codec or suffix (.mkv and .mov hold most)"
        ) from error
    assert isinstance(stream, VideoStream)
    stream.pix_fmt = encoder.pixel_format
    tag_for_players(out, stream)
    if encoder.full_range:
        stream.codec_context.color_range = 2
    return stream


def tag_for_players(out: OutputContainer, stream: VideoStream) -> None:
    """Give HEVC in MP4 the tag under which QuickTime, Safari and iPhones show it."""
    codec = stream.codec_context.codec.canonical_name
    if codec == "hevc" and out.format.name in ("mp4", "mov", "ipod"):
        stream.codec_context.codec_tag = "hvc1"  # FFmpeg writes hev1


def open_encoder(context: VideoCodecContext, encoder: Encoder, where: str) -> None:
    """Open an encoder whose size is set.

    Raises:
        MediaError: If it cannot be opened: hardware is missing, or it does not take the size.
    """
    try:
        context.open()
    except FFmpegError as error:
        raise MediaError(
            f"{where}: the encoder {encoder.name} cannot be opened ({error.strerror}) for "
            f"{context.width}x{context.height} px; {_advice(encoder.name)}"
        ) from error


def _advice(name: str) -> str:
    for ending, needed in (("_nvenc", "an NVIDIA GPU with an encoder"), ("_qsv", "an Intel GPU")):
        if name.endswith(ending):
            return f"it needs {needed} and its driver; use libx264"
    return "choose another codec, such as libx264"
