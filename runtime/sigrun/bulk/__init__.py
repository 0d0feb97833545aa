"""Many pictures: a class for engines that hand batches to workers, and whole data sets into Parquet.

``Embedder`` goes where an engine takes a callable class (Ray Data, Spark, Daft, ``datasets``). ``sigrun embed-dataset``
is the same as a finished job, on this machine or on Ray. Needs numpy; the job needs pyarrow, and Ray where asked for.
"""

from __future__ import annotations

from sigrun.bulk.embedder import Embedder

__all__ = ["Embedder"]
