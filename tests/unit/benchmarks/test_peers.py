import torch
from measuring.gradients import gradients, largest_difference
from measuring.peers import timm_block, timm_mixer, timm_name, timm_network

from sequencer_models import catalog
from sequencer_models.bilstm2d import BiLSTM2D
from sequencer_models.sequencer2d import Sequencer2DBlock


def test_the_peers_compute_what_ours_compute() -> None:
    block = Sequencer2DBlock(16, mlp_ratio=3.0, mlp_dropout=0.0, drop_path=0.0)
    mixer = BiLSTM2D(16, 4)
    x, grad_out = torch.randn(2, 3, 4, 16, requires_grad=True), torch.randn(2, 3, 4, 16)

    for ours, theirs in ((block, timm_block(block)), (mixer, timm_mixer(mixer))):
        mine = {timm_name(name): value for name, value in gradients(ours, x, grad_out).items()}
        assert largest_difference(mine, gradients(theirs, x, grad_out)) < 1e-5


def test_a_network_of_timm_blocks_has_the_weights_of_ours_and_none_of_its_blocks() -> None:
    ours = catalog.build("small", 4, dims=(16, 32), depths=(1, 2)).eval()
    theirs = timm_network(ours).eval()
    images = torch.randn(2, 3, 32, 32)

    assert not any(isinstance(module, Sequencer2DBlock) for module in theirs.modules())
    assert torch.allclose(ours(images), theirs(images), atol=1e-5)


def test_a_wrong_gradient_shows() -> None:
    found = {"weight": torch.tensor([1.0, 4.0])}

    assert largest_difference(found, {"weight": torch.tensor([1.5, 5.0])}) == 0.2
