"""The same step in NumPyro: Laplace guide and prior, Trace_ELBO, the whole step compiled by JAX.

Module C's loss is a factor of the model. One ClippedAdam updates A and C, and C has neither weight
decay nor max-norm. NumPyro's step therefore does less than PM+MO's, not more.
"""

import math

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.infer import SVI, Trace_ELBO
from torch import Tensor, from_numpy

from pmmo.benchmark.cases import Case
from pmmo.benchmark.contenders import Contender
from pmmo.model.networks import layer_shapes
from pmmo.model.systems import Batch


def linear_parameters(name: str, inputs: int, outputs: int) -> tuple[Array, Array]:
    """Learned weights (outputs, inputs) and biases, with fan-in start values."""
    bound = 1 / math.sqrt(inputs)
    weight = numpyro.param(f"{name}.weight", uniform((outputs, inputs), bound))
    return weight, numpyro.param(f"{name}.bias", uniform((outputs,), bound))


def uniform(shape: tuple[int, ...], bound: float):
    return lambda key: jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def batch_norm(name: str, x: Array) -> Array:
    """Batch norm by batch statistics; training needs no running ones, so none are kept."""
    gain = numpyro.param(f"{name}.gain", jnp.ones(x.shape[1]))
    offset = numpyro.param(f"{name}.offset", jnp.zeros(x.shape[1]))
    x = (x - x.mean(0)) * jax.lax.rsqrt(x.var(0) + 1e-5)
    return x * gain + offset


def bce(logits: Array, genres: Array) -> Array:
    return (jax.nn.softplus(logits) - genres * logits).sum()


def numpyro_step(case: Case) -> Contender:
    if case.device != "cpu":
        raise RuntimeError("only its CPU build is pinned")
    s, n = case.settings, case.shape.movies
    weights = layer_shapes(case.shape.text, case.shape.image, s.width, s.gate_input)
    kl_weight = n / sum(map(math.prod, weights.values()))

    def classify(z: Array) -> Array:
        for layer in range(s.maxout_layers):
            z = batch_norm(f"c{layer}.norm", z)
            w, b = linear_parameters(f"c{layer}", z.shape[1], s.maxout_units * s.maxout_pieces)
            z = (z @ w.T + b).reshape(len(z), s.maxout_units, s.maxout_pieces).max(-1)
            kept = jax.random.bernoulli(numpyro.prng_key(), 1 - s.dropout, z.shape)
            z = jnp.where(kept, z / (1 - s.dropout), 0)
        w, b = linear_parameters("c.out", z.shape[1], case.shape.genres)
        return z @ w.T + b

    def model(text: Array, image: Array, genres: Array) -> None:
        text, image = batch_norm("text.norm", text), batch_norm("image.norm", image)
        w = {}
        for name, shape in weights.items():
            layer = name.split(".")[0]
            loc = numpyro.param(f"{layer}.prior_loc", s.prior_loc)
            log_scale = numpyro.param(f"{layer}.prior_log_scale", math.log(s.prior_scale))
            prior = dist.Laplace(loc, jnp.exp(log_scale)).expand(shape).to_event(len(shape))
            with numpyro.handlers.scale(scale=kl_weight):
                w[name] = numpyro.sample(name, prior)
        v_t = jnp.tanh(text @ w["text.weight"].T + w["text.bias"])
        v_i = jnp.tanh(image @ w["image.weight"].T + w["image.bias"])
        v_cat = jnp.concatenate((v_t, v_i) if s.gate_input == "outputs" else (text, image), axis=1)
        gate = jax.nn.sigmoid(v_cat @ w["gate.weight"].T + w["gate.bias"])
        z = gate * v_i + (1 - gate) * v_t
        weight, bias = linear_parameters("readout", s.width, case.shape.genres)
        with numpyro.handlers.scale(scale=n / len(z)):
            likelihood = dist.Bernoulli(logits=z @ weight.T + bias).to_event(2)
            numpyro.sample("genres", likelihood, obs=genres)
        numpyro.factor("c", -bce(classify(z), genres) * n / len(z))

    def guide(text: Array, image: Array, genres: Array) -> None:
        for name, shape in weights.items():
            bound = 1 / math.sqrt(weights[name.split(".")[0] + ".weight"][1])
            loc = numpyro.param(f"{name}.loc", uniform(shape, bound))
            start = jnp.full(shape, math.log(s.guide_scale))
            log_scale = numpyro.param(f"{name}.log_scale", start)
            with numpyro.handlers.scale(scale=kl_weight):
                numpyro.sample(name, dist.Laplace(loc, jnp.exp(log_scale)).to_event(len(shape)))

    svi = SVI(model, guide, numpyro.optim.ClippedAdam(s.learning_rate), Trace_ELBO())
    update = jax.jit(svi.update, donate_argnums=0)
    state = None

    def step(batch: Batch) -> Tensor:
        nonlocal state
        arrays = [jnp.asarray(column.numpy()) for column in batch]
        if state is None:
            state = svi.init(jax.random.PRNGKey(0), *arrays)
        state, loss = update(state, *arrays)
        jax.block_until_ready((state, loss))
        return from_numpy(jax.device_get(loss).reshape(1).copy())[0] / n

    return Contender(step)
