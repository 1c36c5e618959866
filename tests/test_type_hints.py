"""Every public function of the package has type hints: its syntax tree is read."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "dynpose").rglob("*.py"))


def _public_functions(body, inside=""):
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public_functions(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            method = bool(inside)
            special = node.name in ("__init__", "__call__")
            if special or not node.name.startswith("_"):
                yield f"{inside}{node.name}", node, method


def missing_hints(source):
    """The public functions and arguments of a module's text that have no type hint, as "line: function: argument"."""
    missing = []
    for name, node, method in _public_functions(ast.parse(source).body):
        static = any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in node.decorator_list)
        positional = node.args.posonlyargs + node.args.args
        arguments = positional[1:] if method and not static else positional
        arguments = [*arguments, *node.args.kwonlyargs, *filter(None, (node.args.vararg, node.args.kwarg))]
        missing += [f"{node.lineno}: {name}: {each.arg}" for each in arguments if each.annotation is None]
        if node.returns is None and node.name != "__init__":
            missing.append(f"{node.lineno}: {name}: return value")
    return missing


def test_every_public_function_has_type_hints():
    missing = {str(module): missing_hints((ROOT / module).read_text()) for module in MODULES}
    assert {module: names for module, names in missing.items() if names} == {}


def test_missing_hints_are_found():
    source = """
def complete(a: int, *rest: int, key: str = "") -> None: ...
def partial(a, *rest, key="", **others): ...
def _private(a): ...
class Public:
    def __init__(self, a: int): ...
    def method(self, a) -> int: ...
    @staticmethod
    def static(a) -> int: ...
class _Private:
    def method(self, a): ...
"""
    assert missing_hints(source) == [
        "3: partial: a",
        "3: partial: key",
        "3: partial: rest",
        "3: partial: others",
        "3: partial: return value",
        "7: Public.method: a",
        "9: Public.static: a",
    ]
