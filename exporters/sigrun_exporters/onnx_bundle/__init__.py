"""Writes ONNX files that other hosts run without anything of ours."""

from sigrun_exporters.onnx_bundle.bundle import is_ours, write_bundle
from sigrun_exporters.onnx_bundle.hub import write_hub

__all__ = ["is_ours", "write_bundle", "write_hub"]
