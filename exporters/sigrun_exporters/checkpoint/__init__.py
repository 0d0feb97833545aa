"""Opens source checkpoints."""

from sigrun_exporters.checkpoint.hub import locate
from sigrun_exporters.checkpoint.huggingface import open_huggingface
from sigrun_exporters.checkpoint.model import Checkpoint

__all__ = ["Checkpoint", "open_checkpoint"]


def open_checkpoint(model: str, revision: str | None = None) -> Checkpoint:
    """Open a local folder or a hub id.

    Raises:
        CheckpointError: it cannot be found, read, or is not a SigLIP that Sigrun exports.
    """
    return open_huggingface(locate(model, revision))
