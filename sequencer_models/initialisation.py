"""How the weights of a model start: the two initialisations of its linear layers, and the start of its LSTMs."""

import math

import torch
from torch import Tensor, nn

from sequencer_models.layers import Mlp
from sequencer_models.model_spec import Init, RecurrentInit
from sequencer_models.pooling import AttentionPooling


def init_weights(
    model: nn.Module, head: nn.Linear, init: Init, *, recurrent_init: RecurrentInit, forget_bias: float
) -> None:
    """Initialise every layer of `model` in place; `head` is the linear layer that gives the logits.

    Both: LayerNorm 1 and 0; LSTMs as `_init_lstm` says; attention pooling 0, so that it starts as the mean.

    - "he": normal with variance 2/fan_in for linear layers and convolutions (He et al. 2015), biases 0. The head,
      behind which there is no rectifier, has 1/fan_in.
    - "paper": what the paper's code does. Xavier uniform for linear layers, LeCun normal for convolutions, biases
      0 but those of an MLP, which are normal with deviation 1e-6; the head is 0, so the first logits are too.
    """
    mlp_linears = {id(layer) for mlp in model.modules() if isinstance(mlp, Mlp) for layer in (mlp.fc1, mlp.fc2)}
    scores = {id(pooling.score) for pooling in model.modules() if isinstance(pooling, AttentionPooling)}
    for module in model.modules():
        if isinstance(module, nn.LSTM):
            _init_lstm(module, recurrent_init, forget_bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif id(module) in scores:
            assert isinstance(module, nn.Linear)
            nn.init.zeros_(module.weight)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            assert module.bias is not None
            nn.init.zeros_(module.bias)
            if init == "he":
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module is head else "relu")
            elif module is head:
                nn.init.zeros_(module.weight)
            elif isinstance(module, nn.Conv2d):
                _lecun_normal_(module.weight)
            else:
                nn.init.xavier_uniform_(module.weight)
                if id(module) in mlp_linears:
                    nn.init.normal_(module.bias, std=1e-6)


@torch.no_grad()
def _init_lstm(rnn: nn.LSTM, recurrent_init: RecurrentInit, forget_bias: float) -> None:
    """Weights and biases uniform in +-1/sqrt(hidden).

    "orthogonal" makes the recurrent matrix of each gate orthogonal (Saxe et al. 2014, arXiv 1312.6120). `forget_bias`
    is added to one of the two biases of the forget gates: with 1 they start open, and states last longer (Jozefowicz
    et al. 2015).
    """
    D = rnn.hidden_size
    bound = 1.0 / math.sqrt(D)
    for name, weight in rnn.named_parameters():
        nn.init.uniform_(weight, -bound, bound)
        if name.startswith("weight_hh") and recurrent_init == "orthogonal":
            for gate in torch.split(weight, D):  # 4D x D: input, forget, candidate, output
                nn.init.orthogonal_(gate)
        if name.startswith("bias_ih"):
            weight[D : 2 * D] += forget_bias


def _lecun_normal_(weight: Tensor) -> None:
    """Truncated normal with variance 1/fan_in (`weight` is out x in x kernel x kernel)."""
    # cutting a normal at two deviations leaves 0.8796 of its deviation
    std = 1.0 / math.sqrt(weight[0].numel()) / 0.87962566103423978
    with torch.no_grad():
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
