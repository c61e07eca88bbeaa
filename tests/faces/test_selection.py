"""Which person is meant."""

from fractions import Fraction

import pytest
import torch

from lipsync_core.errors import NoFaceError
from lipsync_core.faces.selection import select, shared_faces
from lipsync_core.faces.selector import FaceSelector, parse_face
from lipsync_core.types import FaceTrack


def person(
    x: float, size: float, start: int, count: int, *, scene: int = 0, hidden: range = range(0)
) -> FaceTrack:
    """A still face centred at x, 100, away in the clip frames ``hidden``."""
    box = torch.tensor([x - size / 2, 100 - size / 2, x + size / 2, 100 + size / 2])
    visible = torch.ones(count, dtype=torch.bool)
    visible[[i - start for i in hidden]] = False
    return FaceTrack(
        box.repeat(count, 1), torch.full((count, 5, 2), float(x)), visible, start, scene
    )


def shown(track: FaceTrack) -> dict[int, float]:
    """Clip frame -> x of the centre, where visible."""
    x = (track.boxes[:, 0] + track.boxes[:, 2]) / 2
    return {track.start + int(i): float(x[i]) for i in track.visible.nonzero()[:, 0]}


TWO = [person(400, 60, 0, 100), person(100, 40, 0, 100)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("largest", FaceSelector("largest")),
        (" Left ", FaceSelector("left")),
        ("RIGHT", FaceSelector("right")),
        ("0", FaceSelector("index", index=0)),
        ("12", FaceSelector("index", index=12)),
        ("640,200", FaceSelector("point", point=(640.0, 200.0))),
        ("640.5 , 0", FaceSelector("point", point=(640.5, 0.0))),
    ],
)
def test_every_form_is_read_and_written_back(text: str, wanted: FaceSelector) -> None:
    assert parse_face(text) == wanted
    assert parse_face(str(wanted)) == wanted


@pytest.mark.parametrize(
    "text", ["", "biggest", "-1", "1.5", "1,", ",2", "1,2,3", "a,b", "-4,5", "nan,1", "٣", "1e3,2"]
)
def test_other_words_are_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match=r"largest, left, right, an index .* x,y"):
        parse_face(text)


@pytest.mark.parametrize(
    ("text", "x"),
    [
        ("largest", 400),
        ("left", 100),
        ("right", 400),
        ("0", 100),
        ("1", 400),
        ("390,110", 400),
        ("70,90", 100),
    ],
)
def test_two_people(text: str, x: float) -> None:
    assert shown(select(TWO, parse_face(text))) == dict.fromkeys(range(100), x)


def test_rules_apply_anew_after_a_cut() -> None:
    tracks = [*TWO, person(300, 80, 100, 50, scene=100), person(350, 30, 110, 40, scene=100)]
    assert shown(select(tracks, parse_face("left"))) == dict.fromkeys(
        range(100), 100.0
    ) | dict.fromkeys(range(100, 150), 300.0)
    assert shown(select(tracks, parse_face("1"))) == dict.fromkeys(
        range(100), 400.0
    ) | dict.fromkeys(range(110, 150), 350.0)
    chosen = select(tracks, parse_face("largest"))
    assert (chosen.start, len(chosen.visible), chosen.scene) == (0, 150, 0) and chosen.visible.all()


def test_a_scene_without_the_person_is_left_alone() -> None:
    tracks = [*TWO, person(300, 80, 100, 50, scene=100), person(400, 60, 150, 20, scene=150)]
    assert set(shown(select(tracks, parse_face("1")))) == set(range(100))
    assert set(shown(select(tracks, parse_face("400,100")))) == {*range(100), *range(150, 170)}


def test_largest_counts_over_time_and_takes_over_only_where_it_is_away() -> None:
    giant = person(600, 200, 40, 3)
    host = person(100, 50, 0, 50)
    later = person(300, 40, 60, 40)
    assert shown(select([host, later], parse_face("largest"))) == dict.fromkeys(
        range(50), 100.0
    ) | dict.fromkeys(range(60, 100), 300.0)
    # 3 frames do not outweigh 50
    assert set(shown(select([giant, host], parse_face("largest"))).values()) == {100.0}
    absent = person(100, 50, 0, 100, hidden=range(30, 60))
    filler = person(300, 40, 30, 30)
    assert shown(select([absent, filler], parse_face("largest")))[45] == 300.0


def test_left_is_not_a_passer_by_but_an_index_may_be() -> None:
    tracks = [*TWO, person(20, 30, 60, 10)]
    assert set(shown(select(tracks, parse_face("left"))).values()) == {100.0}
    assert set(shown(select(tracks, parse_face("0"))).values()) == {20.0}


def test_a_place_means_the_earlier_of_two() -> None:
    tracks = [person(110, 50, 50, 40), person(100, 50, 0, 40)]
    assert set(shown(select(tracks, parse_face("110,100")))) == set(range(40))


def test_nobody_is_an_error_that_says_who_is_there() -> None:
    with pytest.raises(
        NoFaceError, match=r"face 2; 2 found: 0 at 100,100 from frame 0; 1 at 400,100 from frame 0"
    ):
        select(TWO, parse_face("2"))
    with pytest.raises(NoFaceError, match="face 250,500"):
        select(TWO, parse_face("250,500"))
    with pytest.raises(NoFaceError, match="no face was found in any frame"):
        select([], parse_face("largest"))
    with pytest.raises(NoFaceError, match="no face was found in any frame"):
        select([person(1, 2, 0, 3, hidden=range(3))], parse_face("left"))
    crowd = [person(50.0 * i, 20, 0, 10) for i in range(12)]
    with pytest.raises(NoFaceError, match=r"12 found.*and 4 more"):
        select(crowd, parse_face("12"))


@pytest.mark.parametrize("names", [("left", "right"), ("left", "left"), ("largest", "400,100")])
def test_two_speakers_of_one_mouth_are_refused(names: tuple[str, str]) -> None:
    tracks = [select(TWO[:1], parse_face(name)) for name in names]
    with pytest.raises(
        ValueError, match=f"{names[0]} and {names[1]} .* same face, at 400,100 from 0 s"
    ):
        shared_faces(tracks, names, Fraction(25))


def test_a_scene_with_one_of_two_speakers_is_said() -> None:
    people = [*TWO, person(300, 60, 100, 50, scene=100)]
    tracks = [select(people, parse_face(name)) for name in ("left", "right")]
    (said,) = shared_faces(tracks, ["left", "right"], Fraction(25))
    assert said.startswith("left and right choose the same face, at 300,100 from 4 s on")
    assert shared_faces([select(TWO, parse_face(n)) for n in "01"], "01", Fraction(25)) == []
