"""The table of public weights."""

import re

from lipsync_core.models.hub import HUB


def test_every_public_file_has_a_place_a_license_and_a_valid_hash() -> None:
    assert len(HUB) >= 12
    for name, entry in HUB.items():
        assert entry.name == name and entry.title and len(entry.licence) > 2, name
        assert "\n" not in entry.licence and "  " not in entry.licence, name
        assert entry.places and all(len(place) == 3 for place in entry.places), name
        assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256), name
    assert [name for name, entry in HUB.items() if entry.sha256 is None] == ["expert"]
