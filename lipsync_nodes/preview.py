"""The work of the nodes 'Detect Faces', 'Select Face' and 'Preview Mask'."""

import math
import sys
from typing import Any, Literal

import torch
from torch import Tensor

from ..lipsync_core.errors import LipSyncError, NoFaceError
from ..lipsync_core.faces.selection import select, select_like
from ..lipsync_core.faces.selector import FaceSelector
from ..lipsync_core.faces.similarity import PORTRAIT_SIZE, make_portrait, pick_portrait_frames
from ..lipsync_core.faces.tracking import track_window
from ..lipsync_core.faces.turned_faces import TRIED
from ..lipsync_core.media.clip import Clip, ImageClip, open_clip
from ..lipsync_core.models.hub import HUB
from ..lipsync_core.options import Blend, Cut
from ..lipsync_core.pipelines.dub_plan import plan_preview
from ..lipsync_core.pipelines.lipsync import LipSync
from ..lipsync_core.pipelines.preview import (
    choose_sheet_frames,
    draw_face_masks,
    draw_mask_sheet,
    draw_overview,
)
from ..lipsync_core.pipelines.track_faces import (
    Finding,
    add_landmarks,
    find_people,
    load_detector,
    load_landmarks,
    load_parser,
    track_boxes,
)
from ..lipsync_core.types import FaceTrack, Frames
from . import convert, host
from .types import People, Voice
from .videos import NO_MASK, video_source

Rule = Literal["largest", "left", "right", "index", "point", "like image"]

# of a face parser at work: 53 MB of weights, eight faces whose widest features are 16 MB each
PARSER_BYTES = 1 << 29
_RATE = 25.0  # a mask does not depend on it
_SHEET = 16  # pictures of a video in the preview
_MASKS_AT_ONCE = 16  # frames, between two looks at Cancel
_FEW_TRACKS = 20  # of so many, five portraits are kept of each; of more, two


def open_media(media: Any, fps: float) -> Clip:
    """Open a VIDEO, or an IMAGE batch that is shown at ``fps``, as a clip."""
    if isinstance(media, Tensor):
        return ImageClip(convert.frames(media).pixels, convert.rate(fps))
    source = video_source(media)
    return open_clip(source.path, Cut(source.start, source.end))


def first_frame(video: Any) -> Tensor:
    """Return the first frame of a VIDEO as an IMAGE."""
    ((_, picture),) = open_media(video, _RATE).pick([0], on_frame=host.cancel_point)
    return convert.image(picture)


def is_lasting(media: Any) -> bool:
    """Whether ``media`` is a file of the user, so that its face tracks are worth caching."""
    return not isinstance(media, Tensor) and video_source(media).lasting


def detect_faces(
    media: Any, fps: float, finding: Finding, bboxes: Any, face_landmarks: Any
) -> tuple[People, list[Any], int, Tensor, Any, Any]:
    """Find the people of a VIDEO or IMAGE; see ``find_people_in``.

    Returns:
        The outputs of 'Detect Faces': people, boxes, their count, preview, mask, landmarks.
    """
    clip = open_media(media, fps)
    people = find_people_in(clip, finding, bboxes, face_landmarks)
    boxes = convert.bounding_boxes(people.tracks, people.frames)
    sheet = convert.image(draw_people(clip, people))
    found = convert.face_landmarks(people.tracks, people.frames, people.width, people.height)
    marks = found if face_landmarks is None else face_landmarks
    return people, boxes, len(people.tracks), sheet, make_masks(media, people), marks


def find_people_in(clip: Clip, finding: Finding, bboxes: Any, face_landmarks: Any) -> People:
    """Find the people of a clip, or take them from boxes or landmarks.

    Args:
        clip: The source pictures.
        finding: How faces are found.
        bboxes: A BOUNDING_BOX of the user; None for none.
        face_landmarks: A FACE_LANDMARKS of the user; None for none.

    Raises:
        NoFaceError: There is no face.
        ValueError: Both boxes and landmarks are given, or they do not fit the clip.
    """
    if bboxes is not None and face_landmarks is not None:
        raise ValueError(
            "bboxes and face_landmarks are both connected; one of them says where the faces are"
        )
    width, height = clip.size
    frames = clip.length
    progress = host.Progress({"pull": 2, "find faces": 8, "look": 1})

    def heard(done: int) -> None:
        progress("find faces", done, max(done, frames or 0))

    smoothing = finding.pace.smoothing
    if face_landmarks is not None:
        boxes, points, meshes = convert.landmarks_by_frame(face_landmarks)
        tracks, count = track_boxes(
            clip, boxes, None, points=points, dense=meshes, smoothing=smoothing, on_found=heard
        )
    else:
        if finding.detector in HUB:
            host.pull_weights(finding.detector, progress)
        if bboxes is None:
            tracks, count = find_people(
                clip, finding, host.device(), stop=sys.maxsize, on_found=heard
            )
        else:
            detector, _ = load_detector(finding, host.device())
            boxes = convert.boxes_by_frame(bboxes)
            tracks, count = track_boxes(clip, boxes, detector, smoothing=smoothing, on_found=heard)
            marks = load_landmarks(host.device())
            tracks = add_landmarks(clip, tracks, count, marks, pace=finding.pace, on_found=heard)
    if not tracks and (bboxes is not None or face_landmarks is not None):
        raise NoFaceError(
            f"none of {count} frames has a face in what is connected; disconnect it to have faces "
            f"found"
        )
    if not tracks:
        raise NoFaceError(
            f"no face in {count} frames of {width}x{height} px (searched {TRIED}); lower min_score "
            f"(now {finding.min_score:g}) or min_size (now {finding.min_size} px), or take another "
            f"detector (now {finding.detector})"
        )
    return People(tuple(tracks), count, width, height, clip.fps, _portraits(clip, tracks, progress))


def draw_people(clip: Clip, found: People) -> Tensor:
    """Draw frames with numbered boxes.

    Returns (H,W,3) uint8: a single picture, or a sheet of at most 16 frames.
    """
    shown = choose_sheet_frames(found.tracks, found.frames, most=_SHEET)
    pictures = (
        Frames(picture[None], frame)
        for frame, picture in clip.pick(shown, on_frame=host.cancel_point)
    )
    return draw_overview(pictures, found.tracks, count=len(shown))


def draw_masks(media: Any, found: People | None, voice: Voice | None, blend: Blend) -> Tensor:
    """Draw frames with the masks of the speaking faces over them.

    Args:
        media: VIDEO or IMAGE.
        found: The faces; None to take the largest.
        voice: The model; None for the bundled one.
        blend: The blend whose masks are drawn.

    Returns:
        (h,w,3) uint8, a contact sheet.

    Raises:
        NoFaceError: No frame shows the face.
        ValueError: The faces were found in other media.
    """
    clip = open_media(media, _RATE)
    network = (voice or Voice(host.bundled_model(), "mini")).patcher.model
    progress = host.Progress({"pull": 1, "find faces": 4})
    if blend.occlusion == "parse":
        host.pull_weights("face_parsing", progress)
        host.free_device_memory(PARSER_BYTES)
    if found is None:
        frames = clip.length or 0
        tracks, count = find_people(
            clip,
            Finding(cache=is_lasting(media)),
            host.device(),
            stop=sys.maxsize,
            on_found=lambda done: progress("find faces", done, max(done, frames)),
        )
        chosen = [select(tracks, FaceSelector("largest"))]
    else:
        found.check(*clip.size, clip.length if clip.path is None else None)
        chosen, count = [speaker.track for speaker in found.speaking], found.frames
    parser = load_parser(host.device()) if blend.occlusion == "parse" else None
    model = LipSync(network, blend=blend, precision="float32", parser=parser)
    return draw_mask_sheet(plan_preview(clip, chosen, count, model), model)


def make_masks(media: Any, found: People) -> Any:
    """Make the MASK of an IMAGE's faces; block with a reason for a VIDEO or without memory."""
    if not isinstance(media, Tensor):
        return host.blocked(NO_MASK)
    size = (found.frames, found.height, found.width)
    what = f"a mask of {found.frames} images of {found.width}x{found.height} px"
    try:
        host.refuse_unless_fits(math.prod(size) * 4, what, "connect fewer images")
    except LipSyncError as error:  # tracks and preview are there all the same
        return host.blocked(str(error))
    shares = torch.empty(size)
    for start in range(0, found.frames, _MASKS_AT_ONCE):
        host.cancel_point()
        part = shares[start : start + _MASKS_AT_ONCE]
        part[:] = draw_face_masks(
            found.tracks, start=start, count=len(part), height=found.height, width=found.width
        )
    return convert.mask(shares)


def select_track(
    found: People, rule: Rule, *, index: int, point: tuple[int, int], reference: Tensor | None
) -> FaceTrack:
    """Select the face that ``rule`` names.

    Args:
        found: All faces.
        rule: How the face is chosen.
        index: Number of the face, for the rule "index".
        point: x and y in px, for the rule "point".
        reference: IMAGE of the person, for the rule "like image".

    Raises:
        NoFaceError: There is no such face.
        ValueError: The rule needs another input.
    """
    if rule == "like image":
        if reference is None:
            raise ValueError(
                "'like image' needs a picture of the person: connect one to 'reference'"
            )
        portraits = [pictures.float() / 255 for pictures in found.portraits]
        return select_like(found.tracks, portraits, reference=_reference(reference))
    return select(found.tracks, FaceSelector(rule, index, (float(point[0]), float(point[1]))))


def refuse_second_choice(found: People, track: FaceTrack) -> None:
    """Raise ValueError if an earlier speaker is the person of ``track``."""
    for number, speaker in enumerate(found.speakers, 1):
        before = track_window(speaker.track, 0, found.frames)
        now = track_window(track, 0, found.frames)
        both = before.visible & now.visible
        if bool(both.any()) and torch.equal(before.boxes[both], now.boxes[both]):
            raise ValueError(
                f"this is speaker {number} again; choose another person here, or take this node out"
            )


def _reference(image: Tensor) -> Tensor:
    """The largest face of an IMAGE as a portrait."""
    clip = ImageClip(convert.frames(image[:1]).pixels, convert.rate(1))
    tracks, _ = find_people(clip, Finding(cache=False, dense=False), host.device(), stop=1)
    if not tracks:
        raise NoFaceError(
            "no face in the reference picture; connect one that shows the person from the front"
        )
    largest = select(tracks, FaceSelector("largest"))
    return make_portrait(clip.pixels[0], largest.boxes[0], largest.points[0])


def _portraits(clip: Clip, tracks: list[FaceTrack], progress: host.Progress) -> tuple[Tensor, ...]:
    """(P,3,S,S) uint8 of every track."""
    wanted = [
        pick_portrait_frames(track, most=5 if len(tracks) <= _FEW_TRACKS else 2) for track in tracks
    ]
    frames = sorted({frame for frames in wanted for frame in frames})
    made: list[list[Tensor]] = [[] for _ in tracks]
    for done, (frame, picture) in enumerate(clip.pick(frames, on_frame=host.cancel_point), 1):
        progress("look", done, len(frames))
        for portraits, track in (
            (m, t) for m, t, w in zip(made, tracks, wanted, strict=True) if frame in w
        ):
            here = track_window(track, frame, 1)
            portraits.append(
                (make_portrait(picture, here.boxes[0], here.points[0]) * 255).round().byte()
            )
    none = torch.empty(0, 3, PORTRAIT_SIZE, PORTRAIT_SIZE, dtype=torch.uint8)
    return tuple(torch.stack(m) if m else none for m in made)
