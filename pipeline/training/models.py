"""The model of a config."""

from typing import TYPE_CHECKING

from pipeline.config.schema import RunConfig

if TYPE_CHECKING:
    from torch import nn


def build_model(config: RunConfig, classes: int) -> "nn.Module":
    """The model of a config, its weights drawn by the config's seed."""
    import torch

    from pipeline.data.batches import derive_seed
    from sequencer_models import catalog

    torch.manual_seed(derive_seed(config.seed, "weights"))
    return catalog.build(config.model.name, classes, **config.model.model_dump(exclude={"name"}))
