"""A job's tasks on Ray Data: each worker is an actor that holds the model.

What goes through Ray are tasks and lists of finished parts; pictures and vectors go from the source to the output
without it, so that both must lie where every node sees them. A task that Ray runs twice writes the same parts again.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sigrun.bulk import packages
from sigrun.bulk.parts import Part
from sigrun.bulk.sources import Dataset
from sigrun.bulk.work import Order, work
from sigrun.errors import SigrunError


class Worker:
    """Does tasks on a node; Ray makes one for each actor."""

    def __init__(self, order: Order, dataset: Dataset) -> None:
        self._order = order
        self._dataset = dataset

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The results of the tasks in column ``task``, both pickled."""
        results = np.empty(len(batch["task"]), object)
        for at, data in enumerate(batch["task"]):
            task = pickle.loads(data)
            try:
                results[at] = pickle.dumps((task.number, work(self._order, self._dataset, task), None))
            except SigrunError as error:  # as a value: Ray would bury it in a traceback
                results[at] = pickle.dumps((task.number, [], error))
        return {"result": results}


def run(
    order: Order, dataset: Dataset, workers: int | None, on_progress: Callable[[int], object]
) -> Iterator[tuple[int, list[Part]]]:
    """Each task with its parts, as they are done.

    Args:
        order: of the job; its model takes as many threads as fall to a worker, if it does not say.
        dataset: what is embedded.
        workers: how many; by default one a node.
        on_progress: called with the number of rows of each task that is done.

    Raises:
        SigrunError: Ray is not installed or fails, or a worker fails.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what fails arrives as an error
    ray = packages.ray()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ours = not ray.is_initialized()
    try:
        if ours:  # RAY_ADDRESS names a cluster; without it Ray starts one here
            ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        yield from _results(ray, order, dataset, workers, on_progress)
    except (ray.exceptions.RayError, ConnectionError) as error:
        cause = getattr(error, "cause", None) or error.__cause__ or error
        words = str(cause).strip().split("\n")[-1][:500]
        raise SigrunError(
            f"Ray failed: {words}",
            hint="what is finished is kept: when this is mended, the same command goes on",
        ) from error
    finally:
        if ours:
            ray.shutdown()


def _results(
    ray: Any, order: Order, dataset: Dataset, workers: int | None, on_progress: Callable[[int], object]
) -> Iterator[tuple[int, list[Part]]]:
    nodes = [int(n["Resources"].get("CPU", 0)) for n in ray.nodes() if n["Alive"]]
    count = min(workers or sum(1 for cpus in nodes if cpus) or 1, len(dataset.tasks))
    share = share_of(nodes, count)
    if order.how.threads is None:
        order = dataclasses.replace(order, how=dataclasses.replace(order.how, threads=max(1, int(share))))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = [{"task": pickle.dumps(task)} for task in dataset.tasks]
    results = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Worker,
        fn_constructor_args=(order, dataclasses.replace(dataset, tasks=())),
        batch_size=1,
        batch_format="numpy",
        num_cpus=share,
        num_gpus=1 if order.how.provider.startswith("cuda") else None,
        compute=ray.data.ActorPoolStrategy(size=count),
    )
    for row in results.iter_rows():
        number, parts, error = pickle.loads(row["result"])
        if error is not None:
            raise error
        on_progress(sum(part.rows for part in parts))
        yield number, parts


def share_of(nodes: Sequence[int], workers: int) -> float:
    """CPUs for each worker, such that all find room on nodes with so many CPUs: whole ones, or a part of one."""
    for cpus in range(sum(nodes) // workers, 0, -1):
        if sum(node // cpus for node in nodes) >= workers:
            return float(cpus)
    return max(0.01, sum(nodes) / workers / 2)
