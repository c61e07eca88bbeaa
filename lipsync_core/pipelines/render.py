"""Render a dub plan: the frames of the output, chunk by chunk."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from ..runtime.prefetch import prefetch, time_items
from ..types import Frames, YuvFrames
from .dub_plan import DubPlan
from .lipsync import LipSync
from .restore import Restorer, enlargement, restored
from .roles import GeneratorCache, RenderedChunk
from .run_log import RunLog

_VISIBLE_ENLARGEMENT = 1.25  # a quarter more than a restorer draws is not visible


def render(
    plan: DubPlan,
    model: LipSync,
    *,
    log: RunLog,
    restorer: Restorer | None = None,
    batch: int = 8,
    opacity: bool = False,
    caches: Sequence[GeneratorCache] | None = None,
) -> Iterator[RenderedChunk[Frames | YuvFrames]]:
    """Render the frames of a plan; memory does not grow with their number.

    Args:
        plan: What to render.
        model: The model that the plan was made for.
        log: Takes the time of every stage, and warnings.
        restorer: A network that restores the dubbed faces; None for none.
        batch: Frames per chunk; each chunk is one batch of the model.
        opacity: Whether chunks carry the opacity of the new mouths.
        caches: One per face of the plan, filled with what the generator draws, and read if it was
            filled before. The caller makes sure that faces, audio, model, references, batch and
            frame order are those with which it was filled.

    Yields:
        Chunks whose frames follow one another from 0.
    """
    kept = caches or [None] * len(plan.faces)
    faces = [replace(face, cache=cache) for face, cache in zip(plan.faces, kept, strict=True)]
    fps = plan.clip.fps
    if plan.clip.still:
        count, picture = len(plan.frame_order), plan.clip.frames(plan.frame_order[:1], chunk=1)
        chunks = model.render(picture, faces, fps=fps, still=count, chunk=batch, opacity=opacity)
    else:
        frames = time_items(plan.clip.frames(plan.frame_order, chunk=batch), log.adder("read"))
        if plan.clip.path is not None:  # a thread decodes; images in memory are there already
            frames = time_items(prefetch(frames), log.adder("wait"))
        chunks = model.render(frames, faces, fps=fps, opacity=opacity)
    chunks = time_items(chunks, log.adder("generate"))
    yield from chunks if restorer is None else _restore(chunks, plan, restorer, log)
    log.seconds["generate"] -= log.seconds.pop("wait", 0.0)


def _restore(
    chunks: Iterator[RenderedChunk[Frames | YuvFrames]],
    plan: DubPlan,
    restorer: Restorer,
    log: RunLog,
) -> Iterator[RenderedChunk[Frames | YuvFrames]]:
    """``chunks`` with their dubbed faces restored; their opacity stays."""
    largest = max(enlargement(face.track) for face in plan.faces)
    if largest > _VISIBLE_ENLARGEMENT:
        log.warn(
            f"a face is {largest:.1f} times as large as {restorer.name} draws it and may lose "
            "sharpness where it is restored; lower its strength, or leave it out for large faces"
        )
    opacities: deque[Tensor | None] = deque()

    def frames() -> Iterator[Frames | YuvFrames]:
        for chunk in chunks:
            opacities.append(chunk.opacity)
            yield chunk.frames

    pieces = restored(
        frames(),
        [face.track for face in plan.faces],
        restorer=restorer,
        shown=[face.opacity for face in plan.faces],
        clear=[face.unoccluded for face in plan.faces],
        fps=plan.clip.fps,
    )
    for piece in time_items(pieces, log.adder("restore")):
        yield RenderedChunk(piece, opacities.popleft())
    log.seconds["restore"] -= log.seconds["generate"]
