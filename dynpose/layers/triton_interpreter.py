"""Fixes of three faults of Triton 3.6's interpreter and of its slowness; importing this module applies them."""

import dataclasses
import functools
import inspect

import numpy as np
import torch
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle, tl

_patch_tensor = interpreter._patch_lang_tensor
_patch_lang = interpreter._patch_lang
_run_grid = interpreter.GridExecutor.__call__
_create_dot = InterpreterBuilder.create_dot
_numpy_dtype = interpreter._get_np_dtype
# of triton.language, those that are patched in the launch that is running
_patched_modules: set[str] = set()


def _patch_tensor_for_numpy(tensor, scope):
    """Let range() take a number that a kernel computes: int() of an array of one is an error in numpy 2.4."""
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


def _run_grid_from_unpatched(self, *args, **kwargs):
    """Launch a kernel: the modules of triton.language are patched anew."""
    _patched_modules.clear()
    return _run_grid(self, *args, **kwargs)


def _patch_lang_once(fn):
    """Patch the modules that a function uses once per launch.

    The interpreter patches them again for every call of a device function, which takes longer than the function.
    """
    modules = _language_modules(fn)
    if modules <= _patched_modules:
        return None
    _patched_modules.update(modules)
    return _patch_lang(fn)


@functools.cache
def _language_modules(fn):
    """Names of the modules of triton.language that a function uses."""
    modules = (value for value in fn.__globals__.values() if inspect.ismodule(value))
    return frozenset(value.__name__ for value in modules if value in (tl, tl.core))


def _create_dot_of_bfloat16(self, a, b, d, *options):
    """Multiply bfloat16 numbers, which the interpreter keeps as uint16, by their values and not by their bits."""
    return _create_dot(self, _in_float32(a), _in_float32(b), d, *options)


def _create_maxnum(self, a, b):
    """Take a number before NaN, as GPUs do where a kernel does not ask for NaN; the interpreter always takes NaN."""
    return self.binary_op(a, b, np.fmax)


# Types of the language, made anew for every result, take most of the interpreter's time: their parts are remembered.


@functools.cache
def _describe_shape(sizes):
    """Return a shape as block types and as tensors have it, both with the number of elements, and its name."""
    of_type = tl.core.tuple(sizes)
    numel = tl.core.validate_block_shape(of_type)
    return of_type, numel, tl.core.tuple([tl.constexpr(size) for size in sizes]), tl.constexpr(numel), str(of_type)


def _init_block_type(self, element_ty, shape):
    """Replace block_type.__init__."""
    sizes = tuple(size.value if isinstance(size, tl.constexpr) else size for size in shape)
    if not sizes:
        raise TypeError("0d block_type is forbidden")
    self.element_ty = element_ty
    self.shape, self.numel, *self.of_tensor, name = _describe_shape(sizes)
    self.name = f"<{name}, {element_ty}>"


_SCALAR = (tl.core.tuple([]), tl.constexpr(1))


def _init_tensor(self, handle, type):
    """Replace tensor.__init__."""
    self.handle, self.type, self.dtype = handle, type, type.scalar
    self.shape, self.numel = type.of_tensor if type.is_block() else _SCALAR


_dtypes_by_name: dict[str, type] = {}


def _numpy_dtype_by_name(dtype):
    """Replace _get_np_dtype, which builds its table for every call."""
    found = _dtypes_by_name.get(dtype.name)
    if found is None:
        found = _dtypes_by_name[dtype.name] = _numpy_dtype(dtype)
    return found


def _in_float32(handle):
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    data = np.ascontiguousarray(handle.data).view(np.int16)
    return TensorHandle(torch.from_numpy(data).view(torch.bfloat16).float().numpy(), tl.float32)


interpreter._patch_lang = _patch_lang_once
interpreter.GridExecutor.__call__ = _run_grid_from_unpatched
interpreter._patch_lang_tensor = _patch_tensor_for_numpy
InterpreterBuilder.create_dot = _create_dot_of_bfloat16
InterpreterBuilder.create_maxnumf = _create_maxnum

tl.core.block_type.__init__ = _init_block_type
tl.core.tensor.__init__ = _init_tensor
interpreter._get_np_dtype = _numpy_dtype_by_name
# It computes whether integers overflow, and asserts it in debug mode only, which it is not in.
interpreter.interpreter_builder.options = dataclasses.replace(
    interpreter.interpreter_builder.options, sanitize_overflow=False
)
