"""Opens source checkpoints, whatever layout they come in."""

from sigrun_exporters.checkpoint import huggingface, openclip, timm
from sigrun_exporters.checkpoint.files import read_json
from sigrun_exporters.checkpoint.hub import locate
from sigrun_exporters.checkpoint.model import Checkpoint

__all__ = ["Checkpoint", "locate", "open_checkpoint"]


def open_checkpoint(model: str, revision: str | None = None) -> Checkpoint:
    """Open a local folder or a hub id.

    The layout is told by the config: ``open_clip_config.json`` is OpenCLIP's, unless its weights are missing and there
    is another; a ``config.json`` is timm's if it names an ``architecture``, else Hugging Face's.

    Raises:
        CheckpointError: it cannot be found, read, or is not a SigLIP that Sigrun exports.
    """
    folder = locate(model, revision)
    if openclip.is_openclip(folder.path):
        return openclip.open_openclip(folder)
    if timm.is_timm(read_json(folder.path, huggingface.CONFIG, huggingface.HOLDS)):
        return timm.open_timm(folder)
    return huggingface.open_huggingface(folder)
