"""Writes the towers' ONNX graphs."""

from sigrun_exporters.graph.barriers import with_barriers
from sigrun_exporters.graph.linear import FORMS, Form
from sigrun_exporters.graph.towers import Graph, Graphs, build

__all__ = ["FORMS", "Form", "Graph", "Graphs", "build", "with_barriers"]
