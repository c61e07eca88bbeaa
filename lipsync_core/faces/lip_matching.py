"""Choose which of a person's own mouths to show for each frame of new speech.

A few frames are picked from a clip, then matched to the speech.
"""

import torch
from torch import Tensor

from ..image.landmarks import LEFT_EYE, NOSE_BASE, NOSE_BRIDGE, RIGHT_EYE, lip_shapes

# Weights of differences, in standard deviations of a person's speech (opening, width, jaw) or eye
# distances (the turn of the head). Opening counts most: warping makes up for the
# remaining difference, and works best on small ones.
_SHAPE_WEIGHTS = (1.0, 0.35, 0.25)
_TURN_WEIGHTS = (4.0, 3.0)
# Cost of changing from one picture to another, beyond the difference of their mouths: the light
# and the folds of the skin change with the picture.
_CHANGE, _APART = 0.30, 0.15
# A head that moves less than this in a frame, in eye distances, is sharp at usual exposures; of one
# that always moves more, the slowest half of its frames is taken.
_SLOW, _SLOWEST = 0.008, 0.5


def measure_head_turns(points: Tensor) -> Tensor:
    """How far heads are turned and bowed.

    Args:
        points: (N,102,2) landmarks.

    Returns:
        (N,2): where the tip of the nose lies beside and below the middle of the eyes, in distances
        of the outer eye corners.
    """
    left, right = points[:, LEFT_EYE.start], points[:, RIGHT_EYE.start + 4]
    across = right - left
    length = across.norm(dim=1).clamp_min(1e-6)[:, None]
    across = across / length
    down = torch.stack([-across[:, 1], across[:, 0]], 1)
    tip = (points[:, NOSE_BRIDGE.stop - 1] + points[:, NOSE_BASE].mean(1)) / 2 - (left + right) / 2
    return torch.stack([(tip * across).sum(1), (tip * down).sum(1)], 1) / length


def find_sharp_frames(points: Tensor, usable: Tensor) -> Tensor:
    """Find the usable frames in which the head is slow enough not to be blurred by its motion.

    Args:
        points: (N,102,2) landmarks of one stretch of a clip.
        usable: (N,) bool, frames with reliable landmarks.

    Returns:
        (N,) bool.
    """
    eyes = points[:, [LEFT_EYE.start, LEFT_EYE.start + 4, RIGHT_EYE.start, RIGHT_EYE.start + 4]]
    still = torch.cat([eyes, points[:, NOSE_BASE]], 1)
    unit = (eyes[:, 0] - eyes[:, 3]).norm(dim=1).clamp_min(1e-6)
    speed = torch.zeros(len(points))
    if len(points) > 2:
        speed[1:-1] = (still[2:] - still[:-2]).norm(dim=2).mean(1) / (2 * unit[1:-1])
        speed[0], speed[-1] = speed[1], speed[-2]
    known = speed[usable]
    if not len(known):
        return usable
    return usable & (speed <= max(_SLOW, float(known.quantile(_SLOWEST))))


def pick_frames(points: Tensor, usable: Tensor, spread: Tensor, most: int) -> Tensor:
    """Pick frames whose mouths and head turns differ most, to span the range of the clip.

    Args:
        points: (N,102,2) landmarks of one stretch of a clip.
        usable: (N,) bool, frames with reliable landmarks.
        spread: (3,) the person's standard deviations of opening, width and jaw.
        most: Largest number of frames.

    Returns:
        (K,) rising frame indices; empty only if no frame is usable.
    """
    frames = usable.nonzero()[:, 0]
    if not len(frames):
        return frames
    shapes, turns = lip_shapes(points[frames]), measure_head_turns(points[frames])
    # single frames beyond nearly all others are mostly errors of the landmarks
    low, high = shapes[:, 0].quantile(shapes.new_tensor([0.01, 0.995]))
    inside = (shapes[:, 0] >= low) & (shapes[:, 0] <= high)
    if inside.any():  # of two frames each is beyond the other
        frames, shapes, turns = frames[inside], shapes[inside], turns[inside]
    features = torch.cat(
        [
            shapes / spread * shapes.new_tensor(_SHAPE_WEIGHTS),
            turns * turns.new_tensor(_TURN_WEIGHTS),
        ],
        1,
    )
    first = int(features[:, 0].argmin())
    chosen, nearest = [first], (features - features[first]).norm(dim=1)
    while len(chosen) < min(most, len(frames)) and float(nearest.max()) > 0.05:
        following = int(nearest.argmax())
        chosen.append(following)
        nearest = torch.minimum(nearest, (features - features[following]).norm(dim=1))
    return frames[torch.tensor(chosen)].sort().values


def match_frames(wanted: Tensor, turns: Tensor, points: Tensor, spread: Tensor) -> Tensor:
    """Find the sequence of pictures that fits speech best and changes least (Viterbi).

    Args:
        wanted: (T,3) opening, width and jaw that the speech needs.
        turns: (T,2) how the head is turned in each output frame (``measure_head_turns``).
        points: (K,102,2) landmarks of the pictures to choose from.
        spread: (3,) the person's standard deviations.

    Returns:
        (T,) the number of a picture for each frame.
    """
    shapes, scale = lip_shapes(points), spread / spread.new_tensor(_SHAPE_WEIGHTS)
    costs = ((wanted[:, None] - shapes) / scale).abs().sum(2)
    costs = costs + (
        (turns[:, None] - measure_head_turns(points)).abs() * turns.new_tensor(_TURN_WEIGHTS)
    ).sum(2)
    apart = (shapes[:, None, 0] - shapes[:, 0]).abs() / spread[0]
    changes = (_CHANGE + _APART * apart) * (1 - torch.eye(len(points)))
    total, came_from = costs[0], []
    for cost in costs[1:]:
        best = (total[:, None] + changes).min(0)
        came_from.append(best.indices)
        total = best.values + cost
    path = [int(total.argmin())]
    for best in reversed(came_from):
        path.append(int(best[path[-1]]))
    return torch.tensor(path[::-1])
