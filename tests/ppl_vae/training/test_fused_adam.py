"""The fused Adam against torch's own optimiser."""

from tests.helpers import needs

pytestmark = needs("torch")

NUM_STEPS = 20


def trained(network, target, step):
    """Parameters after some steps towards a target, as arrays."""
    import torch

    parameters = list(network.parameters())
    inputs = torch.randn(target.shape[0], 3, generator=torch.Generator().manual_seed(1))
    for _ in range(NUM_STEPS):
        loss = ((network(inputs) - target) ** 2).sum()
        step(parameters, torch.autograd.grad(loss, parameters))
    return [p.detach().clone() for p in parameters]


def networks():
    """The same network twice: dense, then transposed convolutions, whose gradients lie in memory channels last."""
    import torch
    from torch import nn

    def make():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(3, 16),
            nn.Unflatten(-1, (4, 2, 2)),
            ChannelsLast(),
            nn.ConvTranspose2d(4, 5, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(5, 2, 4, stride=2, padding=1),
        )

    class ChannelsLast(nn.Module):
        def forward(self, h):
            return h.contiguous(memory_format=torch.channels_last)

    return make(), make()


def test_steps_are_those_of_torch():
    import torch

    from ppl_vae.training.fused_adam import FusedAdam

    ours, theirs = networks()
    target = torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    fused, strides = FusedAdam(list(ours.parameters())), []
    stock = torch.optim.Adam(theirs.parameters(), lr=1e-2, foreach=False)

    def fused_step(parameters, gradients):
        strides.extend(g.stride() == p.stride() for g, p in zip(gradients, parameters, strict=True))
        fused.step(list(gradients), 1e-2)

    def stock_step(parameters, gradients):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.contiguous()
        stock.step()

    pairs = zip(trained(ours, target, fused_step), trained(theirs, target, stock_step), strict=True)
    for found, wanted in pairs:
        # The same formula in another order of operations, float32.
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert not all(strides), "the test needs gradients that lie in memory otherwise than their parameters"
