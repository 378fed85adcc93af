"""Linear-Gaussian hierarchies of any depth as programs, and their terms in closed form by joint moments, in NumPy.

All variables are one vector t = (x, z1, ..., zL). Guide with data, and model, are each t = B t + o + noise, so
that their joint moments are those of (I - B)^-1 (o + noise). The programs' terms are quadratic in x and in the
noise: on ``points`` their means are expectations.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Hierarchy:
    """Sizes of x, z1, ..., zL, and whether the guide draws the latents top first, as the model does."""

    sizes: tuple[int, ...]
    top_down: bool = True

    @property
    def names(self):
        return ["x", *(f"z{level}" for level in range(1, len(self.sizes)))]

    @property
    def latents(self):
        """Latent sites in the model's order."""
        return self.names[:0:-1]

    def parents(self, side):
        """Parents of each site of "model" or "guide", in order of execution; every earlier one is a parent."""
        order = [*self.latents, "x"]
        if side == "guide":
            order = ["x", *(self.latents if self.top_down else self.names[1:])]
        found = {name: order[:number] for number, name in enumerate(order)}
        return found if side == "model" else {name: found[name] for name in order[1:]}

    def weights(self, seed):
        """Random weights by name: a matrix for each parent, an offset and scales for each site."""
        rng, size = np.random.default_rng(seed), dict(zip(self.names, self.sizes, strict=True))
        weights = {}
        for side in ("model", "guide"):
            for name, parents in self.parents(side).items():
                weights |= {f"{side} {name} {p}": 0.6 * rng.normal(size=(size[name], size[p])) for p in parents}
                weights[f"{side} {name} offset"] = 0.3 * rng.normal(size=size[name])
                weights[f"{side} {name} scale"] = np.exp(0.4 * rng.normal(size=size[name]))
        return weights

    def pair(self, ppl, w, *, guide_betas=None, subsample_size=None):
        """The programs, with betas as argument; ``guide_betas`` are for the guide alone."""

        def draw(side, values, name, betas, **observed):
            loc = w[f"{side} {name} offset"] + sum(
                values[p] @ w[f"{side} {name} {p}"].T for p in self.parents(side)[name]
            )
            loc = loc + 0.0 * next(iter(values.values()))[..., :1]  # of the top, which has no parents
            with ppl.scale(scale=betas.get(name, 1.0)):
                fn = ppl.dist.Normal(loc, w[f"{side} {name} scale"]).to_event(1)
                values[name] = ppl.sample(name, fn, **observed)

        def model(x, betas):
            with ppl.plate("data", len(x), subsample_size) as index:
                values = {"": x[index]}
                for name in self.latents:
                    draw("model", values, name, betas)
                draw("model", values, "x", {}, obs=x[index])

        def guide(x, betas):
            with ppl.plate("data", len(x), subsample_size) as index:
                values = {"x": x[index]}
                for name in self.parents("guide"):
                    draw("guide", values, name, betas if guide_betas is None else guide_betas)

        return model, guide

    def points(self, mean, covariance):
        """Data of these moments and noise by latent site: equal weights, exact for quadratic functions."""
        total = sum(self.sizes)
        points = total**0.5 * np.concatenate([np.eye(total), -np.eye(total)])
        x, *noise = np.split(points, np.cumsum(self.sizes)[:-1], axis=1)
        return mean + x @ np.linalg.cholesky(covariance).T, dict(zip(self.names[1:], noise, strict=True))

    def moments(self, w, side, mean=None, covariance=None):
        """Mean and covariance of t in the model, or in the guide on data of the given moments."""
        total, place = sum(self.sizes), self._places()
        mixing, offset, noise = np.zeros((total, total)), np.zeros(total), np.zeros((total, total))
        if side == "guide":
            offset[place["x"]], noise[place["x"], place["x"]] = mean, covariance
        for name, parents in self.parents(side).items():
            for parent in parents:
                mixing[place[name], place[parent]] = w[f"{side} {name} {parent}"]
            offset[place[name]] = w[f"{side} {name} offset"]
            noise[place[name], place[name]] = np.diag(w[f"{side} {name} scale"] ** 2)
        spread = np.linalg.inv(np.eye(total) - mixing)
        return spread @ offset, spread @ noise @ spread.T

    def exact(self, w, mean, covariance):
        """Distortion, and the term of each latent site: minus an entropy plus a cross entropy."""
        moments = self.moments(w, "guide", mean, covariance)
        terms = {"distortion": self._cross_entropy(w, "x", *moments)}
        for name in self.latents:
            entropy = 0.5 * np.log(2 * np.pi * np.e * w[f"guide {name} scale"] ** 2).sum()
            terms[f"rate/{name}"] = self._cross_entropy(w, name, *moments) - entropy
        return terms

    def joint_rate(self, w, mean, covariance, down_to=1):
        """Mean KL of q(z_l, ..., z_L | x) from p(z_l, ..., z_L) by their joint moments, l being ``down_to``."""
        (m, cov), (prior_mean, prior) = self.moments(w, "guide", mean, covariance), self.moments(w, "model")
        x, z = self._places()["x"], slice(sum(self.sizes[:down_to]), None)
        gain = cov[z, x] @ np.linalg.inv(cov[x, x])
        posterior, shift = cov[z, z] - gain @ cov[x, z], m[z] - prior_mean[z]
        second_moment = posterior + gain @ cov[x, x] @ gain.T + np.outer(shift, shift)
        ratio = np.linalg.slogdet(prior[z, z])[1] - np.linalg.slogdet(posterior)[1]
        return 0.5 * (np.trace(np.linalg.solve(prior[z, z], second_moment)) - len(shift) + ratio)

    def evidence(self, w, mean, covariance):
        """Mean of log p(x) over the data."""
        model_mean, model = self.moments(w, "model")
        x = self._places()["x"]
        second_moment = covariance + np.outer(mean - model_mean[x], mean - model_mean[x])
        log_det = np.linalg.slogdet(2 * np.pi * model[x, x])[1]
        return -0.5 * (log_det + np.trace(np.linalg.solve(model[x, x], second_moment)))

    def _places(self):
        ends = np.cumsum(self.sizes)
        return {n: slice(end - size, end) for n, end, size in zip(self.names, ends, self.sizes, strict=True)}

    def _cross_entropy(self, w, name, mean, covariance):
        """Mean of minus the model's log density of a site, its parents given."""
        place = self._places()
        residual = np.zeros((self.sizes[self.names.index(name)], len(mean)))
        residual[:, place[name]] = np.eye(len(residual))
        for parent in self.parents("model")[name]:
            residual[:, place[parent]] = -w[f"model {name} {parent}"]
        shift, variance = residual @ mean - w[f"model {name} offset"], w[f"model {name} scale"] ** 2
        square = np.diag(residual @ covariance @ residual.T) + shift**2
        return 0.5 * (np.log(2 * np.pi * variance) + square / variance).sum()
