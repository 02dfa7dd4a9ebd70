"""What each kernel of the code interpreter gets: formats of results, its environment, and what makes its first run quick."""

import json
import os
import sys

from IPython.core.formatters import BaseFormatter
from traitlets import ObjectName, Unicode

CHART = "e2b/chart"
DATA = "e2b/df"

# Variables that one run has changed, with what they were before.
_replaced = []


class _ChartFormatter(BaseFormatter):
    format_type = Unicode(CHART)
    print_method = ObjectName("_repr_chart_")
    _return_type = dict

    def __call__(self, value):
        """Asked by type: matplotlib's backend takes figures out of every formatter's registry."""
        figures = sys.modules.get("matplotlib.figure")
        if figures is None or not isinstance(value, figures.Figure):
            return None
        from wrenn_kernel.charts import describe_figure

        try:
            return describe_figure(value)
        except Exception:  # whatever a figure is made of, its picture is shown
            return None


class _DataFormatter(BaseFormatter):
    format_type = Unicode(DATA)
    print_method = ObjectName("_repr_columns_")
    _return_type = dict


def load_ipython_extension(shell):
    formatters = shell.display_formatter.formatters
    charts = _ChartFormatter(parent=shell.display_formatter)
    data = _DataFormatter(parent=shell.display_formatter)
    data.for_type_by_name("pandas.core.frame", "DataFrame", _describe_frame)
    formatters[CHART], formatters[DATA] = charts, data


def _describe_frame(frame):
    """Values by column. What JSON has no word for (times, decimals, objects) is text; what is missing is null."""
    return json.loads(frame.to_json(orient="split", date_format="iso", default_handler=str), object_hook=_columns)


def _columns(split):
    if set(split) != {"columns", "index", "data"}:
        return split
    rows = split["data"]
    return {str(name): [row[place] for row in rows] for place, name in enumerate(split["columns"])}


def set_environment(values, removed):
    """Changes the environment for this run and all that follow."""
    os.environ.update(json.loads(values))
    for name in json.loads(removed):
        os.environ.pop(name, None)


def push_environment(values):
    """Changes the environment until `pop_environment`."""
    given = json.loads(values)
    _replaced.append({name: os.environ.get(name) for name in given})
    os.environ.update(given)


def pop_environment():
    for name, value in _replaced.pop().items() if _replaced else ():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def renew():
    """Every copy of a saved kernel would draw the same random numbers."""
    import random

    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def warm_up():
    """Loads what most programs use and draws once: the first plot of a fresh process takes many times longer than the next."""
    import gc

    import matplotlib.pyplot as plot
    import numpy
    import pandas
    from IPython import get_ipython

    figure, axes = plot.subplots()
    axes.plot(numpy.arange(3), label="a")
    axes.legend()
    axes.set_title("a")
    get_ipython().display_formatter.format(figure)
    plot.close(figure)
    get_ipython().display_formatter.format(pandas.DataFrame({"a": [1, 2]}))
    gc.collect()
