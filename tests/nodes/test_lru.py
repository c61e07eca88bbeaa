"""What a node made last is found again, and lets go with what it was made of."""

import gc
import weakref
from collections.abc import Callable

from loading import Pack


class Thing:
    """Anything that the host hands out."""


def counter() -> tuple[list[Thing], Callable[[], Thing]]:
    made: list[Thing] = []

    def make() -> Thing:
        made.append(Thing())
        return made[-1]

    return made, make


def test_the_same_objects_and_settings_find_it_again(pack: Pack) -> None:
    recent = pack.part("lipsync_nodes.lru").LastResult()
    made, make = counter()
    media, audio = Thing(), Thing()
    first = recent.get((media, audio, None), (8, "loop"), make)
    assert recent.get((media, audio, None), (8, "loop"), make) is first
    for inputs, settings in [
        ((media, Thing(), None), (8, "loop")),
        ((media, audio, None), (4, "loop")),
        ((media, audio, audio), (8, "loop")),
        ((media, audio), (8, "loop")),
        ((media, None, None), (8, "loop")),
    ]:
        assert recent.get(inputs, settings, make) is not first
    assert len(made) == 6


def test_it_goes_with_what_it_was_made_of(pack: Pack) -> None:
    recent = pack.part("lipsync_nodes.lru").LastResult()
    media, kept = Thing(), Thing()
    result = weakref.ref(recent.get((media, kept), (), Thing))
    assert result() is not None
    del media
    gc.collect()
    assert result() is None


def test_nothing_is_kept_alive(pack: Pack) -> None:
    recent = pack.part("lipsync_nodes.lru").LastResult()
    media = Thing()
    recent.get((media,), (), Thing)
    alive = weakref.ref(media)
    del media
    gc.collect()
    assert alive() is None
