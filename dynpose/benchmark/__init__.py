"""Measuring dynpose: its operator, models, training, prediction and the loading of data sets.

One package for each benchmark, all of one shape: the docstring of the package says what it measures, ``case`` holds
what is run, ``run`` measures (``measure(args)`` returns a report of plain values, without a path, that JSON holds as
they are), ``report`` writes the tables of a report (``tables(report, style)``) and ``plot``, where there is one, draws
it (``draw(report)``). They share :mod:`.measure` (rounds and medians), :mod:`.clocks`, :mod:`.memory`,
:mod:`.settings` and :mod:`.report`. docs/benchmarks.md describes how everything is measured.
"""
