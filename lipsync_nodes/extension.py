"""The extension that ComfyUI loads: nodes, model folders and the replacement of a node."""
# pyright: reportUntypedBaseClass=false

from comfy_api.latest import ComfyAPI, ComfyExtension, io

from . import host
from .faces import DetectFaces, SelectFace
from .generate import BlendSettings, PreviewMask, Wav2LipGenerate
from .load import DemoMedia, LoadAudio, LoadFaceRestorer, LoadLipSyncModel, LoadVideos
from .score import SetAudio, ShiftAudio, SyncScore

NODES: list[type[io.ComfyNode]] = [
    DemoMedia,
    LoadAudio,
    LoadLipSyncModel,
    LoadFaceRestorer,
    LoadVideos,
    DetectFaces,
    SelectFace,
    BlendSettings,
    PreviewMask,
    Wav2LipGenerate,
    SyncScore,
    ShiftAudio,
    SetAudio,
]


class LipSyncExtension(ComfyExtension):
    """The node pack."""

    async def on_load(self) -> None:
        """Register the model folders and the node replacement."""
        host.register_model_folders()
        await _register_replacement()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the node classes."""
        return NODES


async def _register_replacement() -> None:
    """Let workflows with ``Wav2Lip`` of ShmuelRonen/ComfyUI_wav2lip open without that pack.

    Its wav2lip.py (commit f7a18b7) has the inputs images, mode (sequential, repetitive),
    face_detect_batch, audio, model_file, in this order, and the outputs images, audio. Its
    wav2lip_node.py steps 80/30 mel columns a frame: 30 fps, whatever the clip has. Our detector
    batches by itself, and its model files are not ours, so these two are dropped, as is mode: if
    the sound is longer than the pictures, it slows them down or repeats them; ours plays pingpong.
    """
    replacements = getattr(ComfyAPI(), "node_replacement", None)  # since ComfyUI 0.13
    if replacements is None or not hasattr(io, "NodeReplace"):
        return
    await replacements.register(
        io.NodeReplace(
            new_node_id="LipSync_Wav2LipGenerate",
            old_node_id="Wav2Lip",
            old_widget_ids=["mode", "face_detect_batch", "model_file"],
            input_mapping=[
                {"new_id": "media", "old_id": "images"},
                {"new_id": "audio", "old_id": "audio"},
                {"new_id": "fps", "set_value": 30.0},
                {"new_id": "longer", "set_value": "pingpong"},
                {"new_id": "batch", "set_value": 8},
                {"new_id": "crf", "set_value": 18.0},
            ],
            output_mapping=[{"new_idx": 0, "old_idx": 0}, {"new_idx": 1, "old_idx": 1}],
        )
    )
