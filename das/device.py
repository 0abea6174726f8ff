"""Whether a device is there, asked before anything is loaded or accepted."""

import re
import subprocess
import sys

from das.errors import SettingsError

_KNOWN = re.compile(r"cpu|mps|cuda(?::(?P<number>\d{1,3}))?")
_QUESTION = "import torch; print(torch.cuda.device_count(), int(torch.backends.mps.is_available()))"


def check_device(device: str) -> str:
    """`device` itself; raises SettingsError unless PyTorch can compute there: cpu, cuda, cuda:N or mps.

    A GPU is asked for in a process of its own: neither the service, which does without PyTorch, nor a worker, which
    forks, may touch CUDA.
    """
    known = _KNOWN.fullmatch(device)
    if known is None:
        raise SettingsError(
            f"the device is {device!r}; there are cpu, cuda, cuda:N (such as cuda:1) and mps."
        )
    if device == "cpu":
        return device
    told = subprocess.run([sys.executable, "-c", _QUESTION], capture_output=True, text=True)
    try:
        gpus, mps = map(int, told.stdout.split())
    except ValueError:
        last = (told.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SettingsError(f"PyTorch doesn't load, so the device {device} can't be used: {last}") from None
    if device == "mps":
        if not mps:
            raise SettingsError("the device is mps, but PyTorch finds no Apple GPU here; use cpu.")
    elif int(known["number"] or 0) >= gpus:
        found = f"{gpus} NVIDIA GPU{'s' if gpus != 1 else ''}, counted from 0" if gpus else "no NVIDIA GPU"
        hint = (
            "choose one of them, or cpu" if gpus else "use cpu, or see that driver and PyTorch are for CUDA"
        )
        raise SettingsError(f"the device is {device}, but PyTorch finds {found} here; {hint}.")
    return device
