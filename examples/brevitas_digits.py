"""Train a small binary network with Brevitas, export it, import it, and prove its Verilog on Icarus.

    pip install cbnn[onnx,brevitas]
    python examples/brevitas_digits.py [FOLDER]

Scikit-learn's digits, 8x8 pixels of 0 to 16, are stretched to 0 to 255, as most images come. The network takes their
sign around the middle and has two convolutions, padded with zeros, as PyTorch does. About a minute.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from brevitas.export import export_qonnx
from brevitas.nn import QuantConv2d, QuantIdentity, QuantLinear
from brevitas.quant.binary import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst
from torch import nn

from cbnn.hw.accelerator import accelerator
from cbnn.hw.folding import Folding
from cbnn.model.compute import golden
from cbnn.model.data import digits
from cbnn.model.exchange import qonnx, storage
from cbnn.sim.prove.verify import verify


class Network(nn.Sequential):
    """Digits to scores; weights and activations binary."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [QuantIdentity(act_quant=SignedBinaryActPerTensorConst)]
        for n_in, n_out in ((1, 32), (32, 32)):
            layers += [QuantConv2d(n_in, n_out, 3, padding=1, bias=False,
                                   weight_quant=SignedBinaryWeightPerTensorConst),
                       nn.BatchNorm2d(n_out), QuantIdentity(act_quant=SignedBinaryActPerTensorConst), nn.MaxPool2d(2)]
        layers += [nn.Flatten(),
                   QuantLinear(128, 10, bias=False, weight_quant=SignedBinaryWeightPerTensorConst)]
        super().__init__(*layers)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scores of pixels of 0 to 1."""
        return super().forward(2 * pixels - 1)


def main() -> None:
    """Train, export, import, compare, verify."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "out/brevitas")
    out.mkdir(parents=True, exist_ok=True)
    data = digits.load()
    train, test = ((images.astype(int) * 255 // 16).astype(np.uint8) for images in (data.train_images,
                                                                                 data.test_images))
    torch.set_num_threads(1)  # layers are too small to share out
    torch.manual_seed(0)
    network = Network().train()
    inputs = torch.from_numpy(train.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    labels = torch.from_numpy(data.train_labels)
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 60 * 40)
    for _ in range(60):
        for chosen in torch.randperm(len(inputs)).split(32)[:40]:
            loss = nn.functional.cross_entropy(network(inputs[chosen]) / 4, labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval()
    export_qonnx(network, torch.zeros(1, 1, 8, 8), str(out / "digits.onnx"))

    imported = qonnx.load(out / "digits.onnx")
    storage.save(imported, out / "digits.npz")
    with torch.no_grad():
        theirs = network(torch.from_numpy(test.transpose(0, 3, 1, 2).astype(np.float32) / 255)).numpy()
    ours = golden.scores(imported, test)
    # In float32 the first of two equal scores may come out a little below the second.
    alike = theirs[np.arange(len(test)), ours.argmax(1)] > theirs.max(1) - 1e-4
    print(f"test images that Brevitas and the golden model put into the same class: {alike.sum()} of {len(test)}, "
          f"{(alike & (theirs.argmax(1) != ours.argmax(1))).sum()} of them by one of two equal scores")
    print(f"accuracy: {100 * golden.accuracy(imported, test, data.test_labels):.1f} %")

    unit = accelerator(imported, Folding.parse("(4,9)(8,16)(5,8)", imported.topology))
    result = verify(imported, unit, test[:16], out / "verilog")
    print(f"Icarus: {result.n_images} images, wrong: {result.wrong_images}, interval {result.measured.interval_cycles} "
          f"cycles, predicted {result.predicted.interval_cycles}")
    sys.exit(bool(result.differences) or not alike.all())


if __name__ == "__main__":
    main()
