"""Starts the frozen ``hwcheck``, which starts itself to try or measure something in a process of its own.

It asks Python for that with ``-m MODULE``. Here this program is Python, for the modules of hwcheck alone.
"""

import runpy
import sys

from sigrun_hwcheck.cli import main

OPTIONS = ("-P", "-m")

words = sys.argv[1:]
while words[:1] == ["-P"]:
    del words[0]
if words[:1] == ["-m"] and len(words) > 1 and words[1].startswith("sigrun_hwcheck."):
    sys.argv[1:] = words[2:]
    runpy.run_module(words[1], run_name="__main__", alter_sys=True)
else:
    sys.exit(main())
