"""Writes ONNX files that other hosts run without anything of ours."""

from sigrun_exporters.onnx_bundle.bundle import MANIFEST, write_bundle
from sigrun_exporters.onnx_bundle.hub import write_hub

__all__ = ["MANIFEST", "write_bundle", "write_hub"]
