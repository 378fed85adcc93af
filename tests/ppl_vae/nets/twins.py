"""Pairs of networks, one of each backend."""

from functools import partial


def twins(name, arguments, **options):
    """A torch network and the Equinox one with its weights."""
    import equinox as eqx
    import jax
    import torch

    from ppl_vae.nets import bridge, equinox_nets, torch_nets

    class_name = name.split()[0]
    torch.manual_seed(0)
    net = getattr(torch_nets, class_name)(*arguments, **options)
    make = partial(getattr(equinox_nets, class_name), *arguments, **options)
    blank = eqx.filter_eval_shape(lambda key: make(key=key), jax.random.key(1))
    arrays = {f"net.{key}": value.numpy() for key, value in net.state_dict().items()}
    return net, bridge.unflatten_params(arrays, {"net": blank})["net"], arrays
