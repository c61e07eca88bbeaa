"""A workflow comes from anybody: it reads no file outside the host's folders, runs no code and
fetches nothing by surprise."""

import os
import pickle
import shutil
from pathlib import Path

import material
import pytest
import torch
from client import Client, Refused
from graph import Graph
from launch import ROOT

HOSTILE = (
    "../secret",
    "/etc/passwd",
    "C:\\Windows\\win.ini",
    "\\\\host\\share\\a",
    "/dev/zero",
    "a/../../secret",
    "..\\secret",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_sound_outside_the_input_folder(client: Client, graph: Graph, name: str) -> None:
    material.voice(client.server.base / "secret.wav").rename(client.server.base / "secret")
    sound = graph.add("LipSync_LoadAudio", file=name)
    graph.add("PreviewAudio", audio=sound[0])
    with pytest.raises(Refused, match="does not lie in ComfyUI's folders"):
        client.run(graph)


@pytest.mark.parametrize("name", [*HOSTILE, "..", "/"])
def test_no_folder_outside_the_input_folder(client: Client, graph: Graph, name: str) -> None:
    videos = graph.add("LipSync_LoadVideos", folder=name)
    graph.add("PreviewAny", source=videos[1])
    with pytest.raises(Refused, match=r"does not lie in ComfyUI's folders|is not a folder"):
        client.run(graph)


@pytest.mark.parametrize(
    "name", [*HOSTILE, "someone/else (Hub)", "https://example.com/a.safetensors"]
)
def test_no_model_from_elsewhere(
    client: Client, graph: Graph, names: dict[str, str], name: str
) -> None:
    video, model = (
        graph.add("LoadVideo", file=names["video"]),
        graph.add("LipSync_LoadLipSyncModel", model=name),
    )
    made = graph.add("LipSync_Wav2LipGenerate", media=video[0], model=model[0])
    graph.add("SaveVideo", video=made[0])
    with pytest.raises(Refused, match="not in "):
        client.run(graph)


def test_no_link_out_of_the_input_folder(client: Client, graph: Graph, tmp_path: Path) -> None:
    link = client.server.base / "input/link.wav"
    try:
        link.symlink_to(material.voice(tmp_path / "elsewhere.wav"))
    except OSError:
        assert os.name == "nt", "only Windows asks for a privilege"
        return
    sound = graph.add("LipSync_LoadAudio", file="link.wav")
    graph.add("PreviewAudio", audio=sound[0])
    try:
        with pytest.raises(Refused, match="does not lie in ComfyUI's folders"):
            client.run(graph)
    finally:
        link.unlink()


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def dubbed_with(client: Client, names: dict[str, str], model: str) -> Graph:
    graph = Graph(client.get("/object_info"))
    video, voice = (
        graph.add("LoadVideo", file=names["video"]),
        graph.add("LoadAudio", audio=names["voice"]),
    )
    chosen = graph.add("LipSync_LoadLipSyncModel", model=model)
    made = graph.add("LipSync_Wav2LipGenerate", media=video[0], audio=voice[0], model=chosen[0])
    graph.add("SaveVideo", video=made[0])
    return graph


def test_a_file_of_models_lipsync_speaks(client: Client, names: dict[str, str]) -> None:
    folder = client.server.base / "models/lipsync/mine"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "lipsync_core/assets/mini-2.safetensors", folder / "copy.safetensors")
    name = str(Path("mine", "copy.safetensors"))
    assert (
        name
        in client.get("/object_info")["LipSync_LoadLipSyncModel"]["input"]["required"]["model"][1][
            "options"
        ]
    )
    client.finish(dubbed_with(client, names, name))
    shutil.rmtree(folder)


@pytest.mark.parametrize("written", ["by pickle", "by torch.save"])
def test_a_checkpoint_runs_no_code(
    client: Client, names: dict[str, str], tmp_path: Path, written: str
) -> None:
    path = client.server.base / "models/lipsync/bomb.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    bomb = Bomb(tmp_path / "exploded")
    if written == "by pickle":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save({"state_dict": {"weight": torch.zeros(1), "bomb": bomb}}, path)
    client.fail(dubbed_with(client, names, "bomb.pth"))
    path.unlink()
    assert not (tmp_path / "exploded").exists()


def test_without_a_network_the_hub_says_what_to_do(client: Client, names: dict[str, str]) -> None:
    told = client.fail(dubbed_with(client, names, "wav2lip (Hub)"))
    assert "wav2lip" in told.lower(), told
