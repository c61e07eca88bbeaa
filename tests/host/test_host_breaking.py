"""What is broken gives a sentence that helps, and the host lives on."""

from collections.abc import Callable
from pathlib import Path

import material
import pytest
from client import Client
from graph import Graph
from material import BROKEN_PICTURES, BROKEN_SOUNDS, played

Case = tuple[str, Callable[[Path], Path]]


@pytest.mark.parametrize("case", BROKEN_PICTURES.values(), ids=BROKEN_PICTURES.keys())
@pytest.mark.parametrize(
    "node", ["LipSync_DetectFaces", "LipSync_Wav2LipGenerate", "LipSync_SyncScore"]
)
def test_a_broken_picture(
    client: Client, graph: Graph, names: dict[str, str], tmp_path: Path, case: Case, node: str
) -> None:
    name, make = case
    video = graph.add("LoadVideo", file=client.upload(make(tmp_path / name)))
    sound = (
        {}
        if node == "LipSync_DetectFaces"
        else {"audio": graph.add("LoadAudio", audio=names["voice"])[0]}
    )
    tried = graph.add(node, media=video[0], **sound)
    graph.add("PreviewAny", source=tried[2 if node != "LipSync_Wav2LipGenerate" else 1])
    client.fail(graph)


@pytest.mark.parametrize("case", BROKEN_SOUNDS.values(), ids=BROKEN_SOUNDS.keys())
def test_a_broken_sound(client: Client, graph: Graph, tmp_path: Path, case: Case) -> None:
    name, make = case
    sound = graph.add("LipSync_LoadAudio", file=client.upload(make(tmp_path / name)))
    graph.add("PreviewAudio", audio=sound[0])
    client.fail(graph)


@pytest.mark.parametrize(
    "node", ["LipSync_LoadAudio", "LipSync_Wav2LipGenerate", "LipSync_SyncScore"]
)
def test_a_video_without_sound(
    client: Client, graph: Graph, names: dict[str, str], node: str
) -> None:
    video = graph.add("LoadVideo", file=names["silent"])
    tried = graph.add(node, **{"video" if node == "LipSync_LoadAudio" else "media": video[0]})
    graph.add("PreviewAny", source=tried[0])
    client.fail(graph)


def test_silence_closes_the_mouth_and_is_legal(
    client: Client, graph: Graph, names: dict[str, str], tmp_path: Path
) -> None:
    video = graph.add("LoadVideo", file=names["video"])
    sound = graph.add(
        "LipSync_LoadAudio", file=client.upload(material.silence(tmp_path / "silence.wav"))
    )
    made = graph.add("LipSync_Wav2LipGenerate", media=video[0], audio=sound[0])
    save = graph.add("SaveVideo", video=made[0])
    assert played(client.saved(client.finish(graph), save))[0] == 15


def test_one_frame_is_legal(
    client: Client, graph: Graph, names: dict[str, str], tmp_path: Path
) -> None:
    video = graph.add("LoadVideo", file=client.upload(material.one_frame(tmp_path / "one.mp4")))
    voice = graph.add("LoadAudio", audio=names["voice"])
    made = graph.add("LipSync_Wav2LipGenerate", media=video[0], audio=voice[0])
    save = graph.add("SaveVideo", video=made[0])
    assert played(client.saved(client.finish(graph), save))[0] == 25


def test_a_picture_8000_px_wide(
    client: Client, graph: Graph, names: dict[str, str], tmp_path: Path
) -> None:
    """The detector misses a face of 75 px in 8000 and says so; a box helps it."""
    video = graph.add("LoadVideo", file=client.upload(material.wide(tmp_path / "wide.mp4")))
    voice = graph.add("LoadAudio", audio=names["voice"])
    made = graph.add("LipSync_Wav2LipGenerate", media=video[0], audio=voice[0])
    graph.add("SaveVideo", video=made[0])
    client.fail(graph)


def test_the_host_lives_at_the_end(client: Client, graph: Graph, names: dict[str, str]) -> None:
    video = graph.add("LoadVideo", file=names["video"])
    made = graph.add("LipSync_Wav2LipGenerate", media=video[0])
    graph.add("SaveVideo", video=made[0])
    client.finish(graph)
