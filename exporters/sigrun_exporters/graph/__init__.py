"""Writes the towers' ONNX graphs."""

from sigrun_exporters.graph.linear import FORMS, Form
from sigrun_exporters.graph.towers import Graph, build

__all__ = ["FORMS", "Form", "Graph", "build"]
