"""Compile Triton kernels for GPUs that are not at hand, and read what they need there.

:func:`compile_report` compiles in another process, without Triton's interpreter; this file is also its script. The
process serves all calls, so that torch is imported once.
"""

import collections
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def compile_report(kernels, architectures=(80, 90)):
    """Compile kernels and report their resources.

    Args:
        kernels (list[dict]): of plain values, each with

            kernel: "package.module:name" of the function decorated by ``triton.jit``;
            signature: the type of every argument that is no constant, such as "*fp32", "*i64", "i32" or "fp32".
            Pointers are taken to be aligned to 16 bytes, as torch's are, unless the kernel is the same for all;
            integers are not specialised on;
            constants: the value of every ``tl.constexpr``;
            options (optional): ``num_warps``, ``num_stages`` and such.

            ``signature`` and ``constants`` may name more arguments than the kernel has: kernels can share them.
        architectures (Sequence[int]): compute capabilities, 10 * major + minor.

    Returns:
        list[dict]: one for each kernel and architecture, the architectures of a kernel one after the other: ``kernel``,
        ``architecture``, ``registers`` of a thread, ``spill_bytes`` of a thread (stores and loads), ``stack_bytes`` of
        a thread, ``shared_bytes`` of a thread block; ``loop``, how many instructions of each kind the longest loop has,
        by the names of the machine code ("SHFL", "FFMA", ...); and ``specialised``, the arguments whose value (of
        integers) or alignment (of pointers) is compiled in, so that another one compiles again.
    """
    process, errors = _compiler()
    process.stdin.write(json.dumps({"kernels": kernels, "architectures": list(architectures)}) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert answer, Path(errors.name).read_text()
    return json.loads(answer)


@functools.cache
def _compiler():
    """Start the process that compiles, which ends with its standard input; return it and the file of its errors."""
    # TRITON_INTERPRET is read when Triton is imported, and turns every kernel into one for the interpreter.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    errors = tempfile.NamedTemporaryFile("w", prefix="compiled_kernels_")  # noqa: SIM115  as long as the process
    process = subprocess.Popen(
        [sys.executable, __file__], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=errors,
    )  # fmt: skip
    return process, errors


def _report(kernel, architecture):
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, name = kernel["kernel"].split(":")
    function = getattr(importlib.import_module(module), name)
    constants = {name: value for name, value in kernel["constants"].items() if name in function.arg_names}
    signature = {
        argument: "constexpr" if argument in constants else kernel["signature"][argument]
        for argument in function.arg_names
    }
    aligned = {
        (parameter.num,): [["tt.divisibility", 16]]
        for parameter in function.params
        if signature[parameter.name].startswith("*") and not parameter.do_not_specialize_on_alignment
    }
    compiled = triton.compile(
        ASTSource(function, signature, constants, aligned),
        target=GPUTarget("cuda", architecture, 32),
        options=kernel.get("options", {}),
    )
    registers, spills, stack = _resources(compiled.asm["ptx"], architecture)
    return {
        "kernel": name,
        "architecture": architecture,
        "registers": registers,
        "spill_bytes": spills,
        "stack_bytes": stack,
        "shared_bytes": compiled.metadata.shared,
        "loop": _longest_loop(compiled.asm["cubin"]),
        "specialised": [parameter.name for parameter in function.params if _is_specialised(parameter)],
    }


def _is_specialised(parameter):
    return not (parameter.is_constexpr or (parameter.do_not_specialize and parameter.do_not_specialize_on_alignment))


def _resources(ptx, architecture):
    """Registers, bytes spilled and bytes of stack of a thread, as the assembler says."""
    from triton.backends.nvidia.compiler import get_ptxas

    target = re.search(r"^\.target (\w+)", ptx, re.MULTILINE).group(1)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx)
        command = [get_ptxas(architecture).path, "-v", f"--gpu-name={target}", source, "-o", f"{folder}/kernel.cubin"]
        log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    (registers,) = re.findall(r"Used (\d+) registers", log)
    ((stack, stores, loads),) = re.findall(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log
    )
    return int(registers), int(stores) + int(loads), int(stack)


def _longest_loop(cubin):
    """Instructions of the longest loop of a kernel, counted by kind."""
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder, "kernel.cubin")
        binary.write_bytes(cubin)
        command = [knobs.nvidia.cuobjdump.path, "-sass", binary]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # "/*01a0*/ @!P0 FADD.FTZ R1, R2, R3 ;": where it lies, a predicate, the kind and its variants
    code = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?(\w+)(.*);", listing, re.MULTILINE)
    lines = [(int(where, 16), kind, rest) for where, kind, rest in code]
    jumps = [(int(rest.split("0x")[-1], 16), where) for where, kind, rest in lines if kind == "BRA" and "0x" in rest]
    loops = [(first, last) for first, last in jumps if first < last]
    first, last = max(loops, key=lambda loop: loop[1] - loop[0], default=(0, -1))
    return collections.Counter(kind for where, kind, _ in lines if first <= where <= last)


def _main():
    for line in sys.stdin:
        request = json.loads(line)
        pairs = [(kernel, architecture) for kernel in request["kernels"] for architecture in request["architectures"]]
        print(json.dumps([_report(kernel, architecture) for kernel, architecture in pairs]), flush=True)


if __name__ == "__main__":
    _main()
