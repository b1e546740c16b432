"""What this machine can do, as far as torch may use it: one answer for models, trainings, `doctor` and tests.

Asked of the processor or, where that is not enough, found by trying: `ONEDNN_MAX_CPU_ISA` and `ATEN_CPU_CAPABILITY`
keep torch from instructions that the processor has. Nothing is looked up before it is asked for.
"""

import functools

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from sequencer_models import kernel_build
from sequencer_models.kernel_build import KernelUnavailableError
from sequencer_models.lstm_kernel import LstmKernel


class Machine:
    """What is there; each is looked up once."""

    @functools.cached_property
    def processor(self) -> str:
        """The processor's name, and the vector instructions that torch uses on it."""
        name = torch.cpu.get_capabilities().get("cpu_name", "unknown processor")
        return f"{name} ({torch.backends.cpu.get_cpu_capability()})"

    @functools.cached_property
    def has_bf16(self) -> bool:
        """Whether the processor multiplies bfloat16 natively, and oneDNN may use that."""
        features = torch.cpu.get_capabilities()
        return bool(features.get("amx_bf16") or features.get("avx512_bf16")) and _onednn_takes_bf16()

    @functools.cached_property
    def has_bf16_lstm(self) -> bool:
        """Whether `nn.LSTM` runs under bfloat16 autocast on the CPU, forwards and backwards.

        Found by trying, as there is no way to ask: oneDNN has it from AVX-512 on; elsewhere it raises.
        """
        with (
            torch.random.fork_rng(devices=[]),
            torch.inference_mode(False),
            torch.enable_grad(),
            saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor),  # the caller's hooks may be counting
        ):
            rnn, x = nn.LSTM(4, 4, batch_first=True), torch.zeros(1, 2, 4)
            try:
                with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
                    out = rnn(x)[0]
                out.float().sum().backward()
            except RuntimeError:
                return False
        return True

    @functools.cached_property
    def native_kernel(self) -> tuple[LstmKernel | None, str | None]:
        """The LSTM kernel, built now if this is its first use here, or why there is none.

        A compiler that fails is tried once in a process.
        """
        try:
            return kernel_build.load(), None
        except KernelUnavailableError as error:
            return None, str(error)

    @functools.cached_property
    def cuda_build(self) -> str | None:
        """The version of CUDA that this build of torch is for; None for a CPU build."""
        return torch.version.cuda


@functools.cache
def this_machine() -> Machine:
    """The machine that this process runs on."""
    return Machine()


def _onednn_takes_bf16() -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # not a public function; without it, what the processor says counts
        return True
