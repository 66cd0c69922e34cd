"""Causal video autoencoder: 1 + 4k frames to 1 + k latent frames, the first frame encoded alone.

The layout follows Wan 2.1's autoencoder (arXiv:2503.20314, section 4.1): causal 3D convolutions, RMS norms, spatial
attention in the middle, and a feature cache with which a clip is encoded chunk by chunk at bounded memory.
"""

import dataclasses
import itertools
import math
from typing import Annotated, Literal

import einops
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from videodit.nn.conv import CausalConv3d, FrameCache
from videodit.nn.norm import RMSNorm
from videodit.ranges import Epsilon, Range, Size, check_ranges

Shortcuts = Literal["none", "strides", "levels"]
Stride = Annotated[int, Range(1, 2)]
UpsampleTo = Literal["next", "half", "same"]


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """Sizes of the autoencoder.

    Attributes:
        latent_channels: channels of a latent.
        channels: width of each level, finest first.
        decoder_channels: the same of the decoder, where it has other widths.
        strides: (time, space) stride between one level and the next; time 1 or 2, space 1 or 2.
        patch: side of the pixel squares folded into channels before the first level (space to depth).
        blocks: residual blocks per level (the decoder has one more, as is usual).
        upsample_to: channels after a level of the decoder has been upsampled: those of the "next" level, "half" of its
            own (Wan 2.1) or the "same" (Wan 2.2).
        shortcuts: parameter-free shortcuts by space to depth and back, which make the autoencoder learn fast (DC-AE,
            arXiv:2410.10733): "none", around what "strides" and the last layers, or around "levels" (Wan 2.2).
        quant_conv: whether a linear map follows the encoder and another comes before the decoder.
        time_kernel: taps in time of each level's residual blocks; 1 is a convolution of single frames.
        mid_attention: spatial self-attention in the middle.
        logvar_range: bounds of the posterior's log-variance.
        eps: of every norm.
        dtype: compute type; parameters are float32.
    """

    latent_channels: Size = 16
    channels: tuple[Size, ...] = (96, 192, 384, 384)
    decoder_channels: tuple[Size, ...] | None = None
    strides: tuple[tuple[Stride, Stride], ...] = ((1, 2), (2, 2), (2, 2))
    patch: Annotated[int, Range(1, 1024)] = 1
    blocks: Annotated[int, Range(1, 10_000)] = 2
    upsample_to: UpsampleTo = "next"
    shortcuts: Shortcuts = "none"
    quant_conv: bool = False
    time_kernel: tuple[Annotated[int, Range(1, 1024)], ...] = (3, 3, 3, 3)
    mid_attention: bool = True
    logvar_range: Annotated[tuple[float, float], Range(-80, 80)] = (-20.0, 10.0)
    eps: Epsilon = 1e-6
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    def __post_init__(self):
        check_ranges(self)
        levels = len(self.channels)
        if len(self.strides) != levels - 1 or len(self.time_kernel) != levels:
            raise ValueError(
                f"VAEConfig has {levels} channels, {len(self.strides)} strides and {len(self.time_kernel)} time_kernel "
                f"entries: it needs one stride between levels ({levels - 1}) and one time_kernel a level ({levels})."
            )
        if self.decoder_channels is not None and len(self.decoder_channels) != levels:
            raise ValueError(
                f"VAEConfig has {levels} channels and {len(self.decoder_channels)} decoder_channels: one a level each."
            )
        if self.logvar_range[0] >= self.logvar_range[1]:
            raise ValueError(f"logvar_range is {self.logvar_range}: the first bound must be below the second")

    @property
    def time_stride(self) -> int:
        return math.prod(time for time, _ in self.strides)

    @property
    def space_stride(self) -> int:
        return self.patch * math.prod(space for _, space in self.strides)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Return (T, Y, X, C) of the latent of a clip; ValueError when the clip does not divide."""
        if (frames - 1) % self.time_stride:
            raise ValueError(f"A clip of {frames} frames cannot be encoded: take 1 + {self.time_stride}k frames.")
        if height % self.space_stride or width % self.space_stride:
            raise ValueError(
                f"A clip of height {height} and width {width} cannot be encoded: take multiples of {self.space_stride}."
            )
        return (
            1 + (frames - 1) // self.time_stride,
            height // self.space_stride,
            width // self.space_stride,
            self.latent_channels,
        )


class LatentStatistic(nnx.Variable):
    """Mean or standard deviation of the latents of the training clips, per channel. Measured, not learned."""


class ResBlock(nnx.Module):
    """Norm, SiLU, convolution, twice, and a skip."""

    def __init__(self, in_channels: int, out_channels: int, *, time_kernel: int, eps: float, rngs: nnx.Rngs):
        self.norm1 = RMSNorm(in_channels, dim="conv_out", eps=eps, rngs=rngs)
        self.conv1 = CausalConv3d(in_channels, out_channels, kernel=(time_kernel, 3), rngs=rngs)
        self.norm2 = RMSNorm(out_channels, dim="conv_out", eps=eps, rngs=rngs)
        self.conv2 = CausalConv3d(out_channels, out_channels, kernel=(time_kernel, 3), zero_init=True, rngs=rngs)
        same = in_channels == out_channels
        self.skip = None if same else CausalConv3d(in_channels, out_channels, kernel=(1, 1), rngs=rngs)

    def __call__(self, x_BTYXC: Array, cache: FrameCache) -> Array:
        h_BTYXC = self.conv1(jax.nn.silu(self.norm1(x_BTYXC)), cache)
        h_BTYXC = self.conv2(jax.nn.silu(self.norm2(h_BTYXC)), cache)
        return h_BTYXC + (x_BTYXC if self.skip is None else self.skip(x_BTYXC, cache))


class SpatialAttention(nnx.Module):
    """One head of self-attention over the positions of each frame."""

    def __init__(self, channels: int, *, eps: float, rngs: nnx.Rngs):
        self.norm = RMSNorm(channels, dim="conv_out", eps=eps, rngs=rngs)
        self.qkv = CausalConv3d(channels, 3 * channels, kernel=(1, 1), rngs=rngs)
        self.out = CausalConv3d(channels, channels, kernel=(1, 1), zero_init=True, rngs=rngs)

    def __call__(self, x_BTYXC: Array, cache: FrameCache) -> Array:
        _, frames, height, _, _ = x_BTYXC.shape
        qkv = einops.rearrange(
            self.qkv(self.norm(x_BTYXC), cache), "b t y x (three c) -> three (b t) (y x) 1 c", three=3
        )
        mixed = jax.nn.dot_product_attention(*qkv)
        mixed_BTYXC = einops.rearrange(mixed, "(b t) (y x) 1 c -> b t y x c", t=frames, y=height)
        return x_BTYXC + self.out(mixed_BTYXC, cache)


class Middle(nnx.Module):
    """Residual block, attention, residual block at the coarsest level."""

    def __init__(self, channels: int, cfg: VAEConfig, *, rngs: nnx.Rngs):
        time_kernel = cfg.time_kernel[-1]
        self.first = ResBlock(channels, channels, time_kernel=time_kernel, eps=cfg.eps, rngs=rngs)
        self.attention = SpatialAttention(channels, eps=cfg.eps, rngs=rngs) if cfg.mid_attention else None
        self.last = ResBlock(channels, channels, time_kernel=time_kernel, eps=cfg.eps, rngs=rngs)

    def __call__(self, x_BTYXC: Array, cache: FrameCache) -> Array:
        x_BTYXC = self.first(x_BTYXC, cache)
        if self.attention is not None:
            x_BTYXC = self.attention(x_BTYXC, cache)
        return self.last(x_BTYXC, cache)


class Downsample(nnx.Module):
    """Strided convolutions, first in space, then in time; the first frame of a clip skips the one in time."""

    def __init__(self, channels: int, stride: tuple[int, int], *, rngs: nnx.Rngs):
        time, space = stride
        self.space = CausalConv3d(channels, channels, kernel=(1, 3), stride=(1, 2), rngs=rngs) if space == 2 else None
        self.time = CausalConv3d(channels, channels, kernel=(3, 1), stride=(2, 1), rngs=rngs) if time == 2 else None

    def __call__(self, x_BTYXC: Array, cache: FrameCache) -> Array:
        if self.space is not None:
            x_BTYXC = self.space(x_BTYXC, cache)
        if self.time is None:
            return x_BTYXC
        if not cache.starts_clip:
            return self.time(x_BTYXC, cache)
        first, rest = x_BTYXC[:, :1], x_BTYXC[:, 1:]
        return jnp.concatenate([first, self.time(rest, cache, start=first)], axis=1)


class Upsample(nnx.Module):
    """The way back: two frames from each latent frame after the first, then twice the side."""

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int], *, rngs: nnx.Rngs):
        time, space = stride
        self.time = CausalConv3d(in_channels, 2 * in_channels, kernel=(3, 1), rngs=rngs) if time == 2 else None
        self.scale = space
        smooth = space > 1 or in_channels != out_channels
        self.space = CausalConv3d(in_channels, out_channels, kernel=(1, 3), rngs=rngs) if smooth else None

    def __call__(self, x_BTYXC: Array, cache: FrameCache) -> Array:
        if self.time is not None:
            first = x_BTYXC[:, : 1 if cache.starts_clip else 0]
            rest = self.time(x_BTYXC[:, first.shape[1] :], cache)
            rest = einops.rearrange(rest, "b t y x (two c) -> b (t two) y x c", two=2)
            x_BTYXC = jnp.concatenate([first, rest], axis=1)
        if self.space is None:
            return x_BTYXC
        x_BTYXC = einops.repeat(x_BTYXC, "b t y x c -> b t (y r1) (x r2) c", r1=self.scale, r2=self.scale)
        return self.space(x_BTYXC, cache)


def fold_shortcut(x_BTYXC: Array, channels: int, stride: tuple[int, int], starts_clip: bool) -> Array:
    """Fold space and time into channels, then average down to `channels`; the first frame pairs with zeros."""
    time, space = stride
    if starts_clip:
        x_BTYXC = jnp.pad(x_BTYXC, ((0, 0), (time - 1, 0), (0, 0), (0, 0), (0, 0)))
    folded = einops.rearrange(x_BTYXC, "b (t r) (y p) (x q) c -> b t y x (c r p q)", r=time, p=space, q=space)
    return einops.reduce(folded, "b t y x (c group) -> b t y x c", "mean", c=channels)


def unfold_shortcut(x_BTYXC: Array, channels: int, stride: tuple[int, int], starts_clip: bool) -> Array:
    """Invert `fold_shortcut`: repeat channels as needed and unfold them into time and space."""
    time, space = stride
    repeats = channels * time * space**2 // x_BTYXC.shape[-1]
    wide = einops.repeat(x_BTYXC, "b t y x c -> b t y x (c repeats)", repeats=repeats)
    wide = einops.rearrange(wide, "b t y x (c r p q) -> b (t r) (y p) (x q) c", r=time, p=space, q=space)
    return wide[:, time - 1 :] if starts_clip else wide


def _make_blocks(widths: list[int], cfg: VAEConfig, level: int, rngs: nnx.Rngs) -> list[ResBlock]:
    time_kernel = cfg.time_kernel[level]
    return [ResBlock(i, o, time_kernel=time_kernel, eps=cfg.eps, rngs=rngs) for i, o in itertools.pairwise(widths)]


class EncoderLevel(nnx.Module):
    """Residual blocks, then the stride to the next level."""

    def __init__(self, in_channels: int, cfg: VAEConfig, level: int, *, rngs: nnx.Rngs):
        self.channels = cfg.channels[level]
        widths = [in_channels, *[self.channels] * cfg.blocks]
        self.blocks = nnx.List(_make_blocks(widths, cfg, level, rngs))
        self.stride = cfg.strides[level] if level < len(cfg.strides) else None
        self.downsample = Downsample(self.channels, self.stride, rngs=rngs) if self.stride else None
        self.shortcut = cfg.shortcuts == "levels" or (cfg.shortcuts == "strides" and self.stride is not None)

    def __call__(self, x_BTYXC: Array, cache: FrameCache) -> Array:
        h_BTYXC = x_BTYXC
        for block in self.blocks:
            h_BTYXC = block(h_BTYXC, cache)
        if self.downsample is not None:
            h_BTYXC = self.downsample(h_BTYXC, cache)
        if self.shortcut:
            h_BTYXC = h_BTYXC + fold_shortcut(x_BTYXC, self.channels, self.stride or (1, 1), cache.starts_clip)
        return h_BTYXC


class DecoderLevel(nnx.Module):
    """Residual blocks, then the stride back to the next finer level."""

    def __init__(self, in_channels: int, cfg: VAEConfig, level: int, *, rngs: nnx.Rngs):
        widths = cfg.decoder_channels or cfg.channels
        channels = widths[level]
        self.blocks = nnx.List(_make_blocks([in_channels, *[channels] * (cfg.blocks + 1)], cfg, level, rngs))
        self.stride = cfg.strides[level - 1] if level else None
        after = {"next": widths[max(level - 1, 0)], "half": channels // 2, "same": channels}
        self.channels = after[cfg.upsample_to] if self.stride else channels
        self.upsample = Upsample(channels, self.channels, self.stride, rngs=rngs) if self.stride else None
        self.shortcut = cfg.shortcuts != "none" and self.stride is not None

    def __call__(self, z_BTYXC: Array, cache: FrameCache) -> Array:
        h_BTYXC = z_BTYXC
        for block in self.blocks:
            h_BTYXC = block(h_BTYXC, cache)
        if self.upsample is not None:
            h_BTYXC = self.upsample(h_BTYXC, cache)
        if self.shortcut:
            h_BTYXC = h_BTYXC + unfold_shortcut(z_BTYXC, self.channels, self.stride, cache.starts_clip)
        return h_BTYXC


class Head(nnx.Module):
    """Norm, SiLU and convolution; with shortcuts plus a linear map, which is learnt first."""

    def __init__(self, in_channels: int, out_channels: int, cfg: VAEConfig, level: int, *, rngs: nnx.Rngs):
        shortcut, time_kernel = cfg.shortcuts == "strides", cfg.time_kernel[level]
        self.norm = RMSNorm(in_channels, dim="conv_out", eps=cfg.eps, rngs=rngs)
        self.conv = CausalConv3d(in_channels, out_channels, kernel=(time_kernel, 3), zero_init=shortcut, rngs=rngs)
        self.skip = CausalConv3d(in_channels, out_channels, kernel=(1, 1), rngs=rngs) if shortcut else None

    def __call__(self, x_BTYXC: Array, cache: FrameCache) -> Array:
        h_BTYXC = self.conv(jax.nn.silu(self.norm(x_BTYXC)), cache)
        return h_BTYXC if self.skip is None else h_BTYXC + self.skip(x_BTYXC, cache)


class Encoder(nnx.Module):
    """Encoder of a clip to the mean and log-variance of its latent."""

    def __init__(self, cfg: VAEConfig, *, rngs: nnx.Rngs):
        widths = (cfg.channels[0], *cfg.channels)
        last = cfg.channels[-1]
        self.conv_in = CausalConv3d(3 * cfg.patch**2, widths[0], kernel=(cfg.time_kernel[0], 3), rngs=rngs)
        self.levels = nnx.List(EncoderLevel(widths[i], cfg, i, rngs=rngs) for i in range(len(cfg.channels)))
        self.middle = Middle(last, cfg, rngs=rngs)
        outputs = 2 * cfg.latent_channels  # mean and log-variance
        self.head = Head(last, outputs, cfg, -1, rngs=rngs)
        self.quant = CausalConv3d(outputs, outputs, kernel=(1, 1), rngs=rngs) if cfg.quant_conv else None
        # A posterior as wide as the prior would hide the means initially: start with a narrow one.
        bias = self.head.conv.bias
        bias.set_value(bias[...].at[cfg.latent_channels :].set(-6.0))

    def __call__(self, x_BTYXC: Array, cache: FrameCache) -> Array:
        x_BTYXC = self.conv_in(x_BTYXC, cache)
        for level in self.levels:
            x_BTYXC = level(x_BTYXC, cache)
        posterior_BTYXC = self.head(self.middle(x_BTYXC, cache), cache)
        return posterior_BTYXC if self.quant is None else self.quant(posterior_BTYXC, cache)


class Decoder(nnx.Module):
    """Decoder of a latent to a clip."""

    def __init__(self, cfg: VAEConfig, *, rngs: nnx.Rngs):
        latent, width = cfg.latent_channels, (cfg.decoder_channels or cfg.channels)[-1]
        self.quant = CausalConv3d(latent, latent, kernel=(1, 1), rngs=rngs) if cfg.quant_conv else None
        self.conv_in = CausalConv3d(latent, width, kernel=(cfg.time_kernel[-1], 3), rngs=rngs)
        self.middle = Middle(width, cfg, rngs=rngs)
        self.levels = nnx.List()
        for level in reversed(range(len(cfg.channels))):
            self.levels.append(DecoderLevel(width, cfg, level, rngs=rngs))
            width = self.levels[-1].channels
        self.head = Head(width, 3 * cfg.patch**2, cfg, 0, rngs=rngs)

    def __call__(self, z_BTYXC: Array, cache: FrameCache) -> Array:
        z_BTYXC = z_BTYXC if self.quant is None else self.quant(z_BTYXC, cache)
        z_BTYXC = self.middle(self.conv_in(z_BTYXC, cache), cache)
        for level in self.levels:
            z_BTYXC = level(z_BTYXC, cache)
        return self.head(z_BTYXC, cache)


class VAE(nnx.Module):
    """Causal video autoencoder.

    Clips are [B, 1 + 4k, Y, X, 3] in [-1, 1], latents [B, 1 + k, Y / space_stride, X / space_stride, C].
    """

    def __init__(self, cfg: VAEConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.encoder = Encoder(cfg, rngs=rngs)
        self.decoder = Decoder(cfg, rngs=rngs)
        self.latent_mean = LatentStatistic(jnp.zeros((cfg.latent_channels,)))
        self.latent_std = LatentStatistic(jnp.ones((cfg.latent_channels,)))

    def encode(
        self, video_BTYXC: Float[Array, "B T Y X 3"], *, chunk: int | None = None
    ) -> tuple[Float[Array, "B t y x C"], Float[Array, "B t y x C"]]:
        """Encode clips; return mean and log-variance of the posterior, float32.

        Args:
            video_BTYXC: clip in [-1, 1].
            chunk: frames encoded at a time after the first (a multiple of the time stride); None is the whole clip.
        """
        self.cfg.latent_shape(*video_BTYXC.shape[1:4])
        folded = einops.rearrange(
            video_BTYXC, "b t (y p) (x q) c -> b t y x (p q c)", p=self.cfg.patch, q=self.cfg.patch
        )
        posterior = self._run_chunks(self.encoder, folded.astype(self.cfg.dtype), chunk, self.cfg.time_stride)
        mean, logvar = jnp.split(posterior.astype(jnp.float32), 2, axis=-1)
        return mean, jnp.clip(logvar, *self.cfg.logvar_range)

    def decode(self, z_BTYXC: Float[Array, "B t y x C"], *, chunk: int | None = None) -> Float[Array, "B T Y X 3"]:
        """Decode latents to clips, float32, not clipped to [-1, 1]; `chunk` counts latent frames after the first."""
        folded = self._run_chunks(self.decoder, z_BTYXC.astype(self.cfg.dtype), chunk, 1)
        return einops.rearrange(
            folded.astype(jnp.float32), "b t y x (p q c) -> b t (y p) (x q) c", p=self.cfg.patch, q=self.cfg.patch
        )

    def normalize(self, z: Float[Array, "*dims C"]) -> Float[Array, "*dims C"]:
        """Normalize latents as diffusion takes them: less the mean of each channel, divided by `latent_std`."""
        return (z - self.latent_mean[...]) / self.latent_std[...]

    def denormalize(self, z: Float[Array, "*dims C"]) -> Float[Array, "*dims C"]:
        """Invert `normalize`."""
        return z * self.latent_std[...] + self.latent_mean[...]

    @staticmethod
    def _run_chunks(network: Encoder | Decoder, x_BTYXC: Array, chunk: int | None, unit: int) -> Array:
        if chunk is None:
            return network(x_BTYXC, FrameCache())
        if chunk < unit or chunk % unit:
            raise ValueError(f"chunk is {chunk} frames: it must be a positive multiple of {unit}.")
        first, rest = x_BTYXC[:, :1], x_BTYXC[:, 1:]
        cache = FrameCache()
        parts, tails = [network(first, cache)], cache.next_tails()
        count = rest.shape[1] // chunk
        if count:
            chunks = einops.rearrange(rest[:, : count * chunk], "b (n t) y x c -> n b t y x c", n=count)
            tails, outputs = jax.lax.scan(lambda tails, x: _run_chunk(network, tails, x), tails, chunks)
            parts.append(einops.rearrange(outputs, "n b t y x c -> b (n t) y x c"))
        if rest.shape[1] > count * chunk:
            parts.append(_run_chunk(network, tails, rest[:, count * chunk :])[1])
        return jnp.concatenate(parts, axis=1)


def _run_chunk(network: Encoder | Decoder, tails: tuple[Array, ...], x_BTYXC: Array) -> tuple[tuple[Array, ...], Array]:
    """Run a network on a chunk that follows others; return the next tails and the result."""
    cache = FrameCache(tails)
    output = network(x_BTYXC, cache)
    return cache.next_tails(), output


def kl_divergence(mean: Float[Array, "B *D"], logvar: Float[Array, "B *D"]) -> Float[Array, " B"]:
    """Compute KL(N(mean, exp(logvar)) || N(0, 1)) of each sample, averaged over latent values, nats (Kingma 2014)."""
    kl = 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar)
    return jnp.mean(kl, axis=tuple(range(1, kl.ndim)))
