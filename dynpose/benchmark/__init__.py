"""Benchmarks of dynpose: its operator, models, training, prediction and the loading of data sets.

Each benchmark is a package with the same structure: its docstring describes the measurement, ``case`` holds the
measured code, ``run`` measures (``measure(args)`` returns a report of plain values for JSON, without paths),
``report`` writes its tables (``tables(report, style)``) and ``plot``, if any, draws it (``draw(report)``). They share
:mod:`.case` (the interface of the measured code), :mod:`.measure` (rounds and medians), :mod:`.clocks`, :mod:`.memory`,
:mod:`.settings` and :mod:`.report`. docs/benchmarks.md describes the measurements.
"""
