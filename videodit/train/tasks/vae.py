"""Training an autoencoder."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from videodit.config.run import Run, VAERun
from videodit.diffusion.objective import mean_per_clip
from videodit.models.pixels import to_float
from videodit.models.vae import VAE, kl_divergence
from videodit.shapes import PerClip, RandomKey, Video
from videodit.train.batch import Batch
from videodit.train.task import TASKS, PerClipValues


@TASKS.register("vae")
class VAETask:
    """Autoencoding: reconstruction errors and the divergence of the posterior, weighted as the run says."""

    def __init__(
        self,
        run: VAERun,
        models: Mapping[str, nnx.Module] | None = None,
        empty_text: Mapping[str, np.ndarray] | None = None,
    ):
        self.run = run
        self.latent_shape = run.model.latent_shape(run.data.frames, run.data.height, run.data.width)
        self.tokens_per_clip = math.prod(self.latent_shape[:3])
        self.flops_per_clip = None

    @staticmethod
    def required_models(run: Run) -> tuple[str, ...]:
        return ()

    def init(self, rngs: nnx.Rngs) -> VAE:
        return VAE(self.run.model, rngs=rngs)

    def frozen_arrays(self) -> None:
        return None

    def frozen_shardings(self, mesh: Mesh) -> None:
        return None

    def draw(self, batch: Batch, key: RandomKey) -> Array:
        return jax.random.normal(key, (batch.size, *self.run.model.latent_shape(*batch.video.shape[1:4])))

    def loss(self, model: VAE, frozen: None, batch: Batch, draws: Video) -> tuple[PerClip, PerClipValues]:
        real = to_float(batch.video)
        mean, logvar = model.encode(real)
        error = model.decode(mean + jnp.exp(0.5 * logvar) * draws) - real
        terms = {
            "l1": mean_per_clip(jnp.abs(error)),
            "l2": mean_per_clip(jnp.square(error)),
            "kl": kl_divergence(mean, logvar),
        }
        if self.run.gradient:
            terms["gradient"] = sum(mean_per_clip(jnp.abs(jnp.diff(error, axis=axis))) for axis in (2, 3))
        return sum(getattr(self.run, name) * value_B for name, value_B in terms.items()), terms

    def evaluate(self, model: VAE, frozen: None, batch: Batch, key: RandomKey) -> PerClipValues:
        """Return L1 and PSNR (dB, of the range [-1, 1]) of the reconstruction from the posterior's mean."""
        real = to_float(batch.video)
        mean, logvar = model.encode(real)
        error = jnp.clip(model.decode(mean), -1.0, 1.0) - real
        psnr_B = 10 * jnp.log10(4.0 / jnp.maximum(mean_per_clip(jnp.square(error)), 1e-10))
        return {"l1": mean_per_clip(jnp.abs(error)), "psnr": psnr_B, "kl": kl_divergence(mean, logvar)}

    def sample(self, model: VAE, frozen: None, batch: Batch, key: RandomKey) -> Video:
        """Return the reconstruction from the posterior's mean."""
        return jnp.clip(model.decode(model.encode(to_float(batch.video))[0]), -1.0, 1.0)
