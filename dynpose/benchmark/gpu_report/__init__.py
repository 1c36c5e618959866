"""Everything that has to be measured on a GPU, in ten minutes.

gpu-report runs the benchmarks, the kernels' checks against float64, the tests marked gpu and a short training, each in
a separate process, in the order of plan.yaml: the most valuable first. Every part has a budget of seconds; what a part
leaves over passes on to the next ones. A part that fails or runs out of time does not stop the others.

The folder --output is complete after every part, also if the command is killed: report.md, the index, and for each part
its tables (NAME.md), figures (NAME.json), plot and log. `dynpose benchmark import` writes them into docs/benchmarks.md.
"""
