"""A trained autoencoder at work: clips to normalized latents and back, each compiled once for a shape."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from videodit.checkpoint.restore import load_vae
from videodit.inference.generate import decode_latents, encode_video
from videodit.models.pixels import to_uint8
from videodit.models.vae import VAE
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.parallel.rules import constrain


@dataclass(frozen=True)
class Autoencoder:
    """An autoencoder ready to encode and to decode.

    Attributes:
        mesh: the devices that it is sharded over; None is the first device.
    """

    vae: VAE
    mesh: Mesh | None = None

    @classmethod
    def load(cls, workdir: Path, *, step: int | None = None, mesh: MeshConfig | None = None) -> "Autoencoder":
        """Load an autoencoder's workdir; ValueError when it holds none."""
        devices = None if mesh is None else make_mesh(mesh)
        return cls(load_vae(workdir, step, devices)[0], devices)

    def encode(self, video: UInt8[np.ndarray, "*B T Y X 3"]) -> Float[np.ndarray, "*B t y x C"]:
        """Encode a clip, or a batch of clips, to normalized latents: the means of their posteriors.

        Raises:
            ValueError: when the number of frames is not 1 + 4k, or a side is no multiple of the space stride.
        """
        self.vae.cfg.latent_shape(*video.shape[-4:-1])
        with self._on_mesh():
            latents = np.asarray(self._encode(video.reshape(-1, *video.shape[-4:])))
        return latents.reshape(*video.shape[:-4], *latents.shape[1:])

    def decode(
        self, latents: Float[np.ndarray, "*B t y x C"] | Float[Array, "*B t y x C"], *, tile: int | None = None
    ) -> UInt8[np.ndarray, "*B T Y X 3"]:
        """Decode normalized latents to a clip, or to a batch of clips.

        Args:
            tile: side of the tiles that frames are decoded in, latents; None decodes them whole.
        """
        with self._on_mesh():
            video = np.asarray(self._decode(tile, latents.reshape(-1, *latents.shape[-4:])))
        return video.reshape(*latents.shape[:-4], *video.shape[1:])

    def _on_mesh(self) -> AbstractContextManager:
        return nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    @cached_property
    def _encode(self) -> Callable[..., Array]:
        graphdef, state = nnx.split(self.vae)

        def encode(state, video: Array) -> Array:
            vae = nnx.merge(graphdef, state)
            mean, _ = encode_video(vae, video)
            return constrain(vae.normalize(mean), (None,) * 5)  # in every process

        compiled = jax.jit(encode)
        return lambda video: compiled(state, video)

    @cached_property
    def _decode(self) -> Callable[..., Array]:
        graphdef, state = nnx.split(self.vae)

        def decode(tile: int | None, state, latents: Array) -> Array:
            return constrain(to_uint8(decode_latents(nnx.merge(graphdef, state), latents, tile=tile)), (None,) * 5)

        compiled = jax.jit(decode, static_argnums=0)
        return lambda tile, latents: compiled(tile, state, latents)
