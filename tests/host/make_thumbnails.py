"""Draw example_workflows/*.jpg from what the templates made: python tests/host/make_thumbnails.py FOLDER

FOLDER is ComfyUI's output/video after each template ran once, untouched: every picture shows frames
and sound of it.
"""

import sys
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parents[2]))

from lipsync_core.media import read_audio, read_frames

ROOT = Path(__file__).parents[2]
SIDE = 480  # px; the browser shows squares, and a badge over the left upper corner
NIGHT, PINK, AMBER, GREEN, GREY = (
    (24, 18, 52),
    (255, 79, 139),
    (255, 209, 102),
    (92, 214, 138),
    (150, 145, 175),
)
FACE = (118, 8, 318, 208)  # left, top, right, bottom in the photograph


def frame(video: Path, second: float, box: tuple[int, int, int, int] | None = None) -> Image.Image:
    index = round(second * 25)
    (piece,) = list(read_frames(video, start=index, stop=index + 1))
    return Image.fromarray(piece.pixels[0].numpy()).crop(
        box or (0, 0, piece.pixels.shape[2], piece.pixels.shape[1])
    )


def loudness(video: Path, bars: int, start: float = 0.0, end: float = 8.2) -> np.ndarray:
    """(bars,) in [0,1]: the root mean square of as many equal parts of the sound."""
    sound = read_audio(video, mono=True).samples[0].numpy()
    rate = 16000
    whole = np.pad(sound, (0, max(0, round(end * rate) - len(sound))))[
        round(start * rate) : round(end * rate)
    ]
    levels = np.array([np.sqrt((part**2).mean()) for part in np.array_split(whole, bars)])
    return levels / max(levels.max(), 1e-9)


def wave(
    picture: Image.Image,
    levels: np.ndarray,
    box: tuple[int, int, int, int],
    colours: list[tuple[int, ...]],
) -> None:
    """Draws a bar for each level into ``box``; the colours run from left to right."""
    left, top, right, bottom = box
    draw, step, middle = ImageDraw.Draw(picture), (right - left) / len(levels), (top + bottom) / 2
    for i, level in enumerate(levels):
        at = i / max(1, len(levels) - 1) * (len(colours) - 1)
        low = min(int(at), max(0, len(colours) - 2))
        high = min(low + 1, len(colours) - 1)
        mixed = tuple(
            round(a + (b - a) * (at - low))
            for a, b in zip(colours[low], colours[high], strict=True)
        )
        half = max(step * 0.3, level * (bottom - top) / 2)
        x = left + step * (i + 0.5)
        draw.rounded_rectangle(
            (x - step * 0.3, middle - half, x + step * 0.3, middle + half), step * 0.3, fill=mixed
        )


def blank() -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), NIGHT)


def talk(video: Path) -> Image.Image:
    """The photograph large, speaking; the sound across it."""
    picture = frame(video, 2.30, (90, 0, 390, 300)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    shade = Image.new("RGBA", (SIDE, 150), (*NIGHT, 205))
    picture.paste(shade, (0, SIDE - 150), shade)
    wave(picture, loudness(video, 40), (20, SIDE - 135, SIDE - 20, SIDE - 15), [PINK, AMBER])
    return picture


def dub(video: Path) -> Image.Image:
    """Lips that rest beside lips that speak, the sound below."""
    picture = blank()
    for i, second in enumerate((0.68, 2.36)):  # in a pause, and speaking
        face = frame(video, second, (138, 0, 308, 255)).resize((236, 354), Image.Resampling.LANCZOS)
        picture.paste(face.convert("L").convert("RGB") if i == 0 else face, (i * 244, 0))
    wave(picture, loudness(video, 40), (20, 370, SIDE - 20, SIDE - 14), [PINK, AMBER])
    ImageDraw.Draw(picture).polygon([(226, 150), (226, 210), (262, 180)], fill=AMBER)
    return picture


def trace(video: Path) -> Image.Image:
    """A mouth that rests, and words that begin; one picture without a seam."""
    picture = blank()
    for i, second in enumerate((0.6, 3.86)):  # before the words, and among them
        face = frame(video, second, (138, 0, 308, 255)).resize((236, 354), Image.Resampling.LANCZOS)
        picture.paste(face, (i * 244, 0))
    wave(picture, loudness(video, 40), (20, 370, SIDE - 20, SIDE - 14), [GREEN, GREEN])
    return picture


def two(video: Path) -> Image.Image:
    """Both people, and who speaks when."""
    picture = blank()
    for i, (second, left) in enumerate(((1.6, 98), (6.8, 1024 - 98 - 240))):
        face = frame(video, second, (left, 0, left + 240, 306)).resize(
            (236, 301), Image.Resampling.LANCZOS
        )
        picture.paste(face, (i * 244, 0))
    levels = loudness(video, 44)
    half = round(44 * 4.5 / 8.2)
    wave(picture, np.where(np.arange(44) < half, levels, 0), (14, 312, SIDE - 14, 390), [PINK])
    wave(picture, np.where(np.arange(44) < half, 0, levels), (14, 394, SIDE - 14, 472), [AMBER])
    return picture


def long(video: Path) -> Image.Image:
    """A strip of film, many frames long."""
    picture, size = blank(), 112
    draw = ImageDraw.Draw(picture)
    for row in range(3):
        top = 8 + row * 158
        draw.rectangle((0, top, SIDE, top + 148), fill=(8, 8, 16))
        for hole in range(-1, 17):
            for y in (top + 5, top + 135):
                draw.rounded_rectangle(
                    (hole * 30 + row * 10, y, hole * 30 + row * 10 + 14, y + 8), 2, fill=GREY
                )
        for column in range(5):
            second = 0.2 + (row * 5 + column) * 0.24
            face = frame(video, second, FACE).resize((size, size), Image.Resampling.LANCZOS)
            picture.paste(face, (column * (size + 6) - 30 - row * 24, top + 18))
    return picture


def sync(video: Path) -> Image.Image:
    """Lips, and the sound beside them: too late before, in place after."""
    picture = blank()
    draw = ImageDraw.Draw(picture)
    lips, start = (188, 120, 272, 176), 1.76
    for row, (late, colour) in enumerate(((0.2, PINK), (0.0, GREEN))):
        top = 60 + row * 208
        for column in range(6):
            mouth = frame(video, start + 0.12 + column * 0.24, lips).resize(
                (78, 52), Image.Resampling.LANCZOS
            )
            picture.paste(mouth, (column * 80 + 1, top))
        wave(
            picture,
            loudness(video, 30, start - late, start + 1.44 - late),
            (0, top + 62, SIDE, top + 162),
            [colour],
        )
    draw.polygon([(SIDE // 2 - 22, 236), (SIDE // 2 + 22, 236), (SIDE // 2, 258)], fill=AMBER)
    return picture


def check(video: Path) -> Image.Image:
    """Several clips, each with its verdict."""
    picture = blank()
    draw = ImageDraw.Draw(picture)
    for i, second in enumerate((1.46, 2.36, 4.34, 7.04)):
        x, y = (i % 2) * 242, (i // 2) * 242
        good = i != 1
        picture.paste(
            frame(video, second, FACE).resize((238, 238), Image.Resampling.LANCZOS), (x, y)
        )
        centre = (x + 196, y + 196)
        draw.ellipse(
            (centre[0] - 34, centre[1] - 34, centre[0] + 34, centre[1] + 34),
            fill=GREEN if good else PINK,
        )
        tick = [(-15, 1), (-4, 13), (16, -11)] if good else [(-13, -13), (13, 13)]
        draw.line(
            [(centre[0] + a, centre[1] + b) for a, b in tick], fill="white", width=8, joint="curve"
        )
        if not good:
            draw.line(
                (centre[0] - 13, centre[1] + 13, centre[0] + 13, centre[1] - 13),
                fill="white",
                width=8,
            )
    return picture


def photo(size: int) -> Image.Image:
    """The head of the demo's photograph, which no template needs to run for."""
    whole = Image.fromarray(skimage.data.astronaut())
    return whole.crop((100, 0, 340, 240)).resize((size, size), Image.Resampling.LANCZOS)


def app() -> Image.Image:
    """A face and a voice beside each other, and a button."""
    picture = blank()
    draw = ImageDraw.Draw(picture)
    picture.paste(photo(222), (14, 40))
    draw.rounded_rectangle((244, 40, SIDE - 14, 262), 16, fill=(44, 36, 84))
    wave(picture, loudness(SPEECH, 18), (258, 70, SIDE - 28, 232), [PINK, AMBER])
    draw.rounded_rectangle((90, 320, SIDE - 90, 410), 45, fill=GREEN)
    draw.polygon([(214, 340), (214, 390), (258, 365)], fill=NIGHT)
    return picture


def folder() -> Image.Image:
    """A folder from which clips look, each with its sound."""
    picture = blank()
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((30, 60, 220, 140), 18, fill=AMBER)
    draw.rounded_rectangle((30, 96, SIDE - 30, 420), 18, fill=AMBER)
    for i in range(3):
        left = 52 + i * 130
        picture.paste(photo(116), (left, 130))
        wave(
            picture,
            loudness(SPEECH, 14, i * 2.5, i * 2.5 + 2.5),
            (left, 262, left + 116, 330),
            [NIGHT],
        )
    return picture


def icon(size: int = 400) -> Image.Image:
    """Lips whose middle is a sound wave."""
    picture = Image.new("RGB", (size, size), NIGHT)
    draw = ImageDraw.Draw(picture)
    unit = size / 400
    levels = np.array([0.15, 0.35, 0.7, 1.0, 0.55, 0.85, 1.0, 0.6, 0.3, 0.15])
    draw.ellipse([n * unit for n in (30, 90, 370, 310)], fill=PINK)
    draw.ellipse([n * unit for n in (62, 140, 338, 262)], fill=NIGHT)
    box = (round(85 * unit), round(145 * unit), round(315 * unit), round(257 * unit))
    wave(picture, levels, box, [AMBER, PINK])
    return picture


def banner() -> Image.Image:
    """The icon before a spoken sentence."""
    picture = Image.new("RGB", (1260, 540), NIGHT)
    picture.paste(icon(360), (60, 90))
    wave(picture, loudness(SPEECH, 60), (470, 120, 1210, 420), [PINK, AMBER])
    return picture


SPEECH = ROOT / "lipsync_core/assets/demo.flac"
WEB = ROOT / "lipsync_nodes/web"
DRAWN = {
    "Lip-sync a photo": (talk, "talk from a photo"),
    "Lip-sync a video": (dub, "dub"),
    "Lip-sync without a trace": (trace, "without a trace"),
    "Lip-sync two speakers": (two, "two speakers"),
    "Lip-sync a long video": (long, "long"),
    "Lip-sync repair of a clip": (sync, "in sync"),
    # that template makes no video; its demo folder has this one
    "Lip-sync check of a folder": (check, "in sync"),
}


def main() -> None:
    app().save(ROOT / "example_workflows/Lip-sync app, face and voice.jpg", quality=78)
    folder().save(ROOT / "example_workflows/Lip-sync a folder.jpg", quality=78)
    icon().save(WEB / "icon.png", optimize=True)
    banner().save(WEB / "banner.png", optimize=True)
    for name, (draw, prefix) in DRAWN.items():
        video = max(Path(sys.argv[1]).glob(f"{prefix}_*.mp4"))
        draw(video).save(ROOT / f"example_workflows/{name}.jpg", quality=78, optimize=True)


if __name__ == "__main__":
    main()
