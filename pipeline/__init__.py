"""The product: the stages, what they stand on, and the command line over them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from pipeline.inference.classifier import Classifier


def load_model(model: str | None = None, *, workspace: "str | os.PathLike[str] | None" = None) -> "Classifier":
    """Load a registered model, to classify images with.

        from pipeline import load_model

        model = load_model("cifar10-airplane-automobile-bird-cat@champion")
        for prediction in model.predict(["cat.png", "photo.jpg"]):
            print(prediction.best, prediction.probability, prediction.top(3))
        model.probabilities(pixels)  # N x 32 x 32 x 3 of uint8 to N x K

    `model` is `NAME@ALIAS` or `NAME/NUMBER`; without it, the champion of the only model that is registered.
    `workspace` is a folder of the workspace whose registry is meant, by default the working directory.

    The model computes on the CPU in fp32, with as many threads as torch has. Torch is
    imported when this is called.

    Raises:
        pipeline.errors.ConfigError: there is no such model, alias or version.
        pipeline.errors.ModelError: nothing is registered, or the files of the version are gone, damaged or of
            another release.
        pipeline.errors.TrackingError: the registry cannot be reached or used.
    """
    from pipeline import collector

    with collector.paused():
        from pipeline.inference import loading
    return loading.load_model(model, workspace)
