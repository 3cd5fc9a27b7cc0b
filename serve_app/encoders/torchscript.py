"""Compile functions with TorchScript.

It is deprecated, but its successor compiles for seconds each time, with a compiler that images lack.
"""

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., torch.Tensor | tuple[torch.Tensor, ...]])


def compiled(function: Function) -> Function:
    """Return `function` compiled, as a decorator. A graph that is traced then holds a call of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        result: Function = torch.jit.script(function)
        return result
