"""What a process does before its memory is limited, since a compiler needs memory that a training does not."""

from pipeline import collector
from pipeline.config.schema import RunConfig


def warm_up(config: RunConfig) -> None:
    """Import all that a training needs, build the kernel and measure the machine, unless that was done before.

    Raises:
        MachineUnfitError: the device or the kernel that the config asks for is not available.
    """
    with collector.paused():
        from pipeline.training import open_training, resolve_numerics  # noqa: F401

    resolve_numerics.resolve(config.compute, config.train.batch_size)
