"""The benchmark's page as HTML, and sheets of its worst clips."""

import html
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from ..image.crop import resize_bytes
from ..media import probe, read_frames
from ..runtime.atomic import atomic_write

_FRAMES, _SIDE = 6, 192  # of a sheet: frames in a row, and the side of one in px
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:110rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}"
    "td,th{border:1px solid #8886;padding:.25rem .5rem;text-align:left;white-space:nowrap}"
    "img{max-width:100%;display:block}"
)
_CELL = re.compile(r"(?<!\\)\|")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def write_html(markdown: str, path: Path, *, title: str) -> None:
    """Write a page of our own Markdown as HTML: headings, paragraphs, lists, tables and links.

    Args:
        markdown: The text. What is written in HTML in it stays text.
        path: The file.
        title: Title of the page.
    """
    body = "\n".join(_blocks(markdown.split("\n\n")))
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n"
        "</body></html>\n"
    )
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def _blocks(blocks: Sequence[str]) -> Iterator[str]:
    for block in filter(None, map(str.strip, blocks)):
        lines = block.splitlines()
        heading = re.match(r"(#{1,6}) ", block)
        if heading and len(lines) == 1:
            level = len(heading[1])
            yield f"<h{level}>{_inline(block[level + 1 :])}</h{level}>"
        elif block.startswith("|"):
            yield _table(lines)
        elif all(line.startswith("- ") for line in lines):
            yield "<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in lines) + "</ul>"
        else:
            yield f"<p>{_inline(' '.join(lines))}</p>"


def _table(lines: Sequence[str]) -> str:
    rows = [
        [cell.strip().replace("\\|", "|") for cell in _CELL.split(line.strip())[1:-1]]
        for line in lines
    ]
    head = "".join(f"<th>{_inline(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>" for row in rows[2:]
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _inline(text: str) -> str:
    def link(found: re.Match[str]) -> str:
        picture, label, target = found.groups()
        if picture:
            return f'<img src="{target}" alt="{label}">'
        return f'<a href="{target}">{label}</a>'

    return _LINK.sub(link, html.escape(text))


Box = tuple[int, int, int, int]


def write_sheet(source: Path, made: Path, out: Path, *, frames: int, box: Box) -> None:
    """Write faces of a source above those of the same frames of its dub, as a JPEG.

    Args:
        source: The video that was dubbed.
        made: The dub.
        out: The file.
        frames: Number of frames of the dub, at the rate of the source.
        box: Left, top, right and bottom of the part that is shown, in px.
    """
    from PIL import Image

    fps = probe(source).fps
    at = [round(i * max(frames - 1, 0) / (_FRAMES - 1)) for i in range(_FRAMES)]
    rows = [[_thumbnail(path, index, fps, box) for index in at] for path in (source, made)]
    sheet = torch.cat([torch.cat(row, 1) for row in rows])
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as part:
        Image.fromarray(sheet.numpy()).save(part, "JPEG", quality=88)


def _thumbnail(path: Path, index: int, fps: Fraction, box: Box) -> Tensor:
    """A part of one frame, (192,192,3) uint8; gray where there is no frame."""
    left, top, right, bottom = box
    for piece in read_frames(path, fps=fps, chunk=1, start=index, stop=index + 1):
        return resize_bytes(piece.pixels[:, top:bottom, left:right], (_SIDE, _SIDE))[0]
    return torch.full((_SIDE, _SIDE, 3), 128, dtype=torch.uint8)


def find_box(boxes: Tensor, width: int, height: int) -> Box:
    """Find a square around a face, half larger than its median box, within the frame.

    Args:
        boxes: (N,4) boxes of the frames that show it, in px.
        width: Width of the frame.
        height: Height of the frame.

    Returns:
        Left, top, right and bottom.
    """
    x0, y0, x1, y1 = boxes.float().median(0).values.tolist()
    half = 0.75 * max(x1 - x0, y1 - y0)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    left, top = max(0, round(x - half)), max(0, round(y - half))
    right, bottom = min(width, round(x + half)), min(height, round(y + half))
    return left, top, max(right, left + 1), max(bottom, top + 1)
