"""Training of the classifier's network: cross-entropy in nats, Adam with one cycle, the best epoch kept."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ppl_vae.classifier.network import ImageNetwork
from ppl_vae.data import Rows, SelectedRows, row_blocks

__all__ = ["Fitted", "Report", "predict", "shifted", "train_network"]

BATCH_SIZE = 128
LEARNING_RATE = 5e-3  # at the top of the cycle
# Colour images take more epochs, and shifts of a 14th of their side: 2 to 3 % of CIFAR-10 more are right.
GREY_SEEN, COLOUR_SEEN, MAX_EPOCHS = 450_000, 700_000, 25
SHIFT = 14
STATISTICS_ROWS = 10_000  # for the mean and the scale of each channel
PREDICTION_ROWS = 512
Report = Callable[[str], object]


@dataclass(frozen=True)
class Fitted:
    """A trained network.

    Attributes:
        network: The network at its best epoch.
        epochs: Epochs of the cycle.
        best_epoch: The epoch, from 1, with the lowest cross-entropy on the validation rows.
    """

    network: ImageNetwork
    epochs: int
    best_epoch: int


def train_network(
    x: Rows,
    targets: NDArray[np.int64],
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    *,
    seed: int,
    device: torch.device,
    report: Report,
) -> Fitted:
    """Train a network; on one CPU, with one number of threads, equal seeds give equal weights.

    Args:
        x: Images in [0, 1], (n, h, w[, c]).
        targets: Class indices 0, 1, ..., (n,).
        train: Rows to train on.
        validation: Rows to choose the epoch by.
        seed: Seed of the weights and of the order.
        device: Where to train.
        report: Gets a line after each epoch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = ImageNetwork(tuple(x.shape[1:]), int(targets.max()) + 1)
    rng = np.random.default_rng(seed)
    _standardise(network, x[np.sort(rng.permutation(train)[:STATISTICS_ROWS])])
    network.to(device)
    num_steps = max(1, len(train) // BATCH_SIZE)
    is_colour = len(network.loc) > 1
    epochs = min(MAX_EPOCHS, -(-(COLOUR_SEEN if is_colour else GREY_SEEN) // len(train)))
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * num_steps)
    best, best_epoch, weights = np.inf, 0, network.state_dict()
    for epoch in range(1, epochs + 1):
        network.train()
        for rows in np.array_split(rng.permutation(train), num_steps):
            batch = shifted(x[rows], rng) if is_colour else x[rows]
            logits = network(_tensor(batch, device))
            loss = nn.functional.cross_entropy(logits, _tensor(targets[rows], device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        found, accuracy = _score(network, x, targets, validation, device)
        report(f"epoch {epoch} of {epochs}: cross-entropy {found:.4f} nats, accuracy {accuracy:.4f} on validation")
        if found < best:
            best, best_epoch, weights = found, epoch, copy.deepcopy(network.state_dict())
    network.load_state_dict(weights)
    return Fitted(network.eval(), epochs, best_epoch)


def predict(
    network: ImageNetwork, x: Rows, device: torch.device
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Features (m, f) and log-probabilities (m, classes), in nats, block by block.

    Args:
        network: The network, on the device.
        x: Images, (n, h, w[, c]).
        device: Where it is.
    """
    network.eval()
    for block in row_blocks(len(x), tuple(x.shape[1:])):
        images = x[block]
        for start in range(0, len(images), PREDICTION_ROWS):
            with torch.inference_mode():
                features = network.features(_tensor(images[start : start + PREDICTION_ROWS], device))
                log_probabilities = network.head(features).double().log_softmax(-1)
            yield features.double().cpu().numpy(), log_probabilities.cpu().numpy()


def shifted(images: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Each image moved by up to a 14th of its side, a new offset each; pixels of the edge fill the gap.

    Args:
        images: Images, (n, h, w[, c]).
        rng: Draws the offsets.
    """
    num_images, height, width = images.shape[:3]
    most = max(height, width) // SHIFT
    margins = [(0, 0), (most, most), (most, most)] + [(0, 0)] * (images.ndim - 3)
    down, right = rng.integers(0, 2 * most + 1, (2, num_images))[..., None]
    rows, columns = (down + np.arange(height))[:, :, None], (right + np.arange(width))[:, None, :]
    return np.pad(images, margins, mode="edge")[np.arange(num_images)[:, None, None], rows, columns]


def _score(
    network: ImageNetwork, x: Rows, targets: NDArray[np.int64], rows: NDArray[np.int64], device: torch.device
) -> tuple[float, float]:
    """Cross-entropy in nats and accuracy on some rows."""
    log_probabilities = np.concatenate([found for _, found in predict(network, SelectedRows(x, rows), device)])
    labels = targets[rows]
    cross_entropy = -log_probabilities[np.arange(len(labels)), labels].mean()
    return float(cross_entropy), float(np.mean(log_probabilities.argmax(1) == labels))


def _standardise(network: ImageNetwork, x: NDArray[np.float32]) -> None:
    channels = len(network.loc)
    pixels = np.reshape(x, (-1, channels)).astype(np.float64)
    # A channel that hardly varies is not blown up.
    loc, scale = pixels.mean(0), np.maximum(pixels.std(0), 0.01)
    for buffer, values in ((network.loc, loc), (network.scale, scale)):
        buffer.copy_(torch.from_numpy(values.reshape(channels, 1, 1)))


def _tensor(values: NDArray[np.float32] | NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)
