"""qonnx's own execution of networks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def executed() -> Callable:
    """Give what executes a network in qonnx, image by image."""

    def execute(path: Path, images: np.ndarray, flat: bool = False) -> np.ndarray:
        """Scores of images (N, height, width, colours), as the graph is to see them."""
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.util.cleanup import cleanup_model

        model = cleanup_model(ModelWrapper(str(path)))
        name, out = model.graph.input[0].name, model.graph.output[0].name
        batch = images.reshape(len(images), -1) if flat else images.transpose(0, 3, 1, 2)
        return np.array([execute_onnx(model, {name: image[np.newaxis].astype(np.float32)})[out].ravel()
                         for image in batch])

    return execute
