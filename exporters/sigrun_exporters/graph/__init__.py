"""Writes the towers' ONNX graphs."""

from sigrun_exporters.graph.towers import FORM, Graph, build

__all__ = ["FORM", "Graph", "build"]
