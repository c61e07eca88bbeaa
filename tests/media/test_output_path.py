"""Nothing that cannot be decoded gets a final name."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.media import click, levels, write_sound, write_video

from lipsync_core.errors import MediaError
from lipsync_core.media.output_path import move_into_place


def without_key_frames(path: Path, out: Path) -> Path:
    """A copy in which no picture can be decoded."""
    with av.open(str(path)) as reader, av.open(str(out), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.pts is not None and not packet.is_keyframe:
                packet.stream = stream
                writer.mux(packet)
    return out


def test_a_picture_that_cannot_be_decoded_is_not_put_in_place(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", levels(5))
    broken, out = without_key_frames(whole, tmp_path / ".broken.mp4"), tmp_path / "out.mp4"
    out.write_bytes(b"what was there")
    with pytest.raises(MediaError, match=r"out\.mp4: the picture .* cannot be decoded"):
        move_into_place(broken, out, overwrite=True)
    assert out.read_bytes() == b"what was there"


def test_a_picture_that_ends_too_early_is_not_put_in_place(tmp_path: Path) -> None:
    part = write_video(tmp_path / ".part.mp4", levels(5))
    with pytest.raises(MediaError, match="the picture"):
        move_into_place(part, tmp_path / "out.mp4", overwrite=False, seconds=Fraction(2, 5))
    move_into_place(part, tmp_path / "out.mp4", overwrite=False, seconds=Fraction(1, 5))
    assert (tmp_path / "out.mp4").is_file()


def test_sound_that_cannot_be_decoded_is_not_put_in_place(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 8000)).astype(np.float32)
    whole = write_sound(tmp_path / "a.mkv", noise, 8000, codec="flac", picture_frames=25)
    with av.open(str(whole)) as reader:
        sound = [bytes(packet) for packet in reader.demux(audio=0) if packet.size]
    data = whole.read_bytes()
    for packet in sound:
        data = data.replace(packet, bytes(len(packet)))
    part = tmp_path / ".part.mkv"
    part.write_bytes(data)
    with pytest.raises(MediaError, match="the sound"):
        move_into_place(part, tmp_path / "out.mkv", overwrite=False)
    write_sound(part, click(8000, 1, 0.5), 8000, codec="flac", picture_frames=25)
    move_into_place(part, tmp_path / "out.mkv", overwrite=False)
