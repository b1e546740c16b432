"""What a benchmark is run under, each in a process of its own, since some of it is read when torch is loaded."""

import os
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Setting:
    """One set of circumstances. `threads` None: as many as there are physical cores."""

    name: str
    label: str
    threads: int | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def has_bf16(self) -> bool:
        """False for AVX2: bfloat16 is then emulated, a hundred times slower, and nobody would train in it."""
        return "ONEDNN_MAX_CPU_ISA" not in self.environ

    @property
    def environ(self) -> dict[str, str]:
        """What differs from the caller's environment; threads sleep while they wait, as the command line has it."""
        return {"OMP_WAIT_POLICY": "PASSIVE", **self.environment}


AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
DEFAULT = Setting("default", "all cores")
TWO_THREADS = Setting("2-threads", "2 threads", threads=2)
ONE_THREAD = Setting("1-thread", "1 thread", threads=1)
LAPTOP_LIKE = Setting("avx2", "laptop-like (AVX2), 2 threads", threads=2, environment=AVX2)

EVERY = (TWO_THREADS, ONE_THREAD, LAPTOP_LIKE)
BY_NAME = {setting.name: setting for setting in (*EVERY, DEFAULT)}


def child_environ(setting: Setting) -> dict[str, str]:
    """The whole environment of a setting's process."""
    return os.environ | setting.environ
