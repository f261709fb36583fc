"""The benchmarks by name."""

from eval.benchmarks.elyza_tasks_100 import ELYZA_TASKS_100
from eval.benchmarks.jcommonsenseqa import JCOMMONSENSEQA
from eval.benchmarks.jsquad import JSQUAD
from eval.benchmarks.niilc import NIILC

BENCHMARKS = {one.name: one for one in (JSQUAD, NIILC, JCOMMONSENSEQA, ELYZA_TASKS_100)}
