"""timm's Sequencer parts with the weights of ours: what ours are compared with."""

import copy
from typing import Any

from torch import nn

from pipeline.data.torchvision_import import import_torchvision
from sequencer_models.bilstm2d import BiLSTM2D
from sequencer_models.sequencer2d import Sequencer2D, Sequencer2DBlock

NAMES = {"mixer.": "rnn_tokens.", "mlp.": "mlp_channels."}
"""Of our parameters in timm's block."""


def timm_mixer(mixer: BiLSTM2D) -> nn.Module:
    """timm's `LSTM2d` with the same weights."""
    assert mixer.rnn_v is not None, "timm's mixes along both axes"
    theirs: nn.Module = _timm().LSTM2d(mixer.rnn_v.input_size, mixer.rnn_v.hidden_size)
    theirs.load_state_dict(mixer.state_dict())
    return theirs


def timm_block(block: Sequencer2DBlock) -> nn.Module:
    """timm's `Sequencer2dBlock` with the same weights and drop path."""
    assert block.mixer.rnn_v is not None, "timm's mixes along both axes"
    C, hidden = block.mlp.fc1.in_features, block.mlp.fc1.out_features
    theirs: nn.Module = _timm().Sequencer2dBlock(
        C, block.mixer.rnn_v.hidden_size, mlp_ratio=hidden / C, drop_path=block.drop_path.rate
    )
    theirs.load_state_dict({timm_name(name): value for name, value in block.state_dict().items()})
    return theirs


def timm_network(model: Sequencer2D) -> nn.Module:
    """The same network with timm's blocks in place of ours; stem, merging and head stay."""
    network = copy.deepcopy(model)
    for level in network.levels:
        blocks = level.blocks
        assert isinstance(blocks, nn.Sequential)
        for index, block in enumerate(blocks):
            assert isinstance(block, Sequencer2DBlock)
            blocks[index] = timm_block(block)
    return network


def timm_name(name: str) -> str:
    """timm's name of one of our block's parameters."""
    for ours, theirs in NAMES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _timm() -> Any:
    import_torchvision()  # beside a CPU build of torch it needs help
    import timm.models.sequencer

    return timm.models.sequencer
