"""A CPU build of PyTorch is made to dispatch and differentiate fake tensors that say they are on cuda. No compiler.

Two things are missing in a CPU build. There is no device guard for CUDA: PyTorch has one that does nothing, for fake
tensors in CUDA builds that see no device, and puts it in the place of a guard that counts none. And autograd asks the
hooks of CUDA whether CUDA was built, and whether a device has a context to go back to. Both are places of C++ that are
reached through ctypes, and that other versions may have elsewhere. It has to be done before the process's first
backward pass, which counts the devices.
"""

import atexit
import ctypes
from pathlib import Path

import torch

TESTED = "2.13"
_CUDA = 1
"""Its number among c10's types of devices."""
_TYPES = 22
"""How many there are."""
_SLOTS = 96
"""More than either class has virtual functions."""
_IS_BUILT, _HAS_PRIMARY_CONTEXT = 2, 4
"""Their places among the hooks' virtual functions; two destructors stand before them."""

_kept: list[object] = []
"""What C++ points at stays."""


def obstacle() -> str | None:
    """Why this build of PyTorch cannot pretend to have a GPU; None where it can."""
    if torch.version.cuda or torch.version.hip:
        return "this build of PyTorch has CUDA: nothing is to be pretended"
    if not torch.__version__.startswith(f"{TESTED}."):
        return f"the guard was written for the CPU build of torch {TESTED}, and this is {torch.__version__}"
    return None


def install() -> None:
    """Let tensors be on `cuda` in this process, for good. Raises RuntimeError where `obstacle` names one."""
    if reason := obstacle():
        raise RuntimeError(reason)
    libraries = Path(torch.__file__).parent / "lib"
    c10, cpu = (ctypes.CDLL(str(libraries / name)) for name in ("libc10.so", "libtorch_cpu.so"))
    guards = (ctypes.c_void_p * _TYPES).in_dll(c10, "_ZN3c104impl26device_guard_impl_registryE")
    if guards[_CUDA]:
        return
    none = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0)
    functions = (ctypes.c_void_p * _SLOTS)(*[ctypes.cast(none, ctypes.c_void_p).value] * _SLOTS)
    blind = (ctypes.c_void_p * 1)(ctypes.addressof(functions))  # an object is a pointer to its virtual functions
    guards[_CUDA] = ctypes.addressof(blind)
    torch._C._ensureCUDADeviceGuardSet()
    if guards[_CUDA] in (None, ctypes.addressof(blind)):
        raise RuntimeError("PyTorch did not put its own guard in the place of one without devices")

    get_hooks = cpu["_ZN2at6detail12getCUDAHooksEv"]
    get_hooks.restype = ctypes.c_void_p
    hooks = ctypes.cast(get_hooks(), ctypes.POINTER(ctypes.c_void_p))
    yes = ctypes.CFUNCTYPE(ctypes.c_bool)(lambda: True)
    known = (ctypes.c_void_p * (_SLOTS + 2)).from_address(hooks[0] - 16)  # type information stands before them
    changed = (ctypes.c_void_p * (_SLOTS + 2))(*known)
    changed[2 + _IS_BUILT] = ctypes.cast(yes, ctypes.c_void_p).value
    changed[2 + _HAS_PRIMARY_CONTEXT] = ctypes.cast(none, ctypes.c_void_p).value
    atexit.register(hooks.__setitem__, 0, hooks[0])  # C++ outlives Python, and with it these functions
    hooks[0] = ctypes.addressof(changed) + 16
    _kept.extend([none, functions, blind, yes, changed])
