"""Exports SigLIP checkpoints to quantized GGUF artifacts. Needs the ``export`` extra; never torch."""
