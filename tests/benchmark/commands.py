"""Running `dynpose benchmark`, and reading the tables that it prints."""

import argparse

from dynpose.tools import benchmark


def parse(*arguments):
    """Parse the arguments of the command."""
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return parser.parse_args(arguments)


def read_tables(text):
    """Read tables in markdown by title: a list of dicts each."""
    tables, blocks = {}, text.strip().split("\n\n")
    for title, block in zip(blocks, blocks[1:]):
        if block.startswith("|"):
            titles, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines())
            tables[title] = [dict(zip(titles, line)) for line in lines]
    return tables
