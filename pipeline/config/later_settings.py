"""Settings that were added when people had results already: at their defaults they count in no fingerprint.

With them at their defaults the same is computed as before they were there, so what was made then stays up to date.
"""

from typing import Any

from pipeline.config.group import Group

LATER = frozenset(
    {
        "model.stem_width",
        "model.whitened",
        "model.mixing",
        "model.pooling",
        "model.recurrent_init",
        "model.forget_bias",
        "train.optimizer",
        "train.muon_learning_rate",
        "train.bias_rate_factor",
        "train.adam_beta2",
        "train.augment.padding",
        "train.augment.alternating_flip",
        "train.augment.cutmix",
        "evaluate.mirrored",
    }
)


def counted(group: Group, name: str) -> dict[str, Any]:
    """What a stage reads of a config group: its settings as plain values, without later ones at their defaults."""
    found = {}
    for key, value in group.model_dump(mode="json").items():
        dotted, field = f"{name}.{key}", getattr(group, key)
        if isinstance(field, Group):
            found[key] = counted(field, dotted)
        elif dotted not in LATER or field != type(group).model_fields[key].default:
            found[key] = value
    return found
