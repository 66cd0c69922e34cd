"""Wan's autoencoders, 2.1 and 2.2, in diffusers' layout (arXiv:2503.20314, section 4.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float

from videodit.checkpoint import latent_stats
from videodit.config.schema import from_tree
from videodit.interop.mapping import Rule
from videodit.models.vae import VAEConfig
from videodit.provenance import JSON
from videodit.ranges import Range, Size, check_ranges

LatentStats = Float[np.ndarray, "C"]


@dataclass(frozen=True, kw_only=True)
class _Fields:
    """What is read of the `config.json` of diffusers' `AutoencoderKLWan`."""

    base_dim: Size
    dim_mult: tuple[Size, ...]
    z_dim: Size
    num_res_blocks: Annotated[int, Range(1, 10_000)]
    temperal_downsample: tuple[bool, ...]
    latents_mean: latent_stats.Means
    latents_std: latent_stats.Deviations
    decoder_base_dim: Size | None = None
    patch_size: Annotated[int, Range(1, 1024)] | None = None
    is_residual: bool = False
    attn_scales: tuple[float, ...] = ()

    def __post_init__(self):
        check_ranges(self)
        if self.attn_scales:
            raise ValueError(f"attn_scales is {self.attn_scales} in the autoencoder's config.json: Wan's have none")
        if len(self.dim_mult) != len(self.temperal_downsample) + 1:
            raise ValueError(
                f"dim_mult has {len(self.dim_mult)} levels: it must have one more than temperal_downsample, "
                f"{len(self.temperal_downsample)}"
            )
        counts = len(self.latents_mean), len(self.latents_std)
        if counts != (self.z_dim, self.z_dim):
            raise ValueError(f"latents_mean and latents_std have {counts} numbers: z_dim is {self.z_dim}")


def parse_config(fields: Mapping[str, JSON]) -> VAEConfig:
    """Return the autoencoder that a `config.json` of diffusers' `AutoencoderKLWan` describes.

    Raises:
        ValueError: for an option that is not Wan's, and a field of a wrong type or out of range.
    """
    wan = from_tree(_Fields, fields, ignore_unknown=True)
    bases = wan.base_dim, wan.decoder_base_dim or wan.base_dim
    widths = [tuple(base * factor for factor in wan.dim_mult) for base in bases]
    return VAEConfig(
        latent_channels=wan.z_dim,
        channels=widths[0],
        decoder_channels=None if widths[0] == widths[1] else widths[1],
        strides=tuple((1 + time, 2) for time in wan.temperal_downsample),
        patch=wan.patch_size or 1,
        blocks=wan.num_res_blocks,
        upsample_to="same" if wan.is_residual else "half",
        shortcuts="levels" if wan.is_residual else "none",
        quant_conv=True,
        time_kernel=(3,) * len(wan.dim_mult),
        logvar_range=(-30.0, 20.0),
        eps=1e-24,  # torch's normalize bounds the norm itself by 1e-12
    )


def export_config(cfg: VAEConfig, mean_C: LatentStats, std_C: LatentStats) -> dict[str, JSON]:
    """Return the `config.json` of an exported autoencoder with the mean and standard deviation of its latents."""
    decoder, residual = cfg.decoder_channels or cfg.channels, cfg.shortcuts == "levels"
    return {
        "_class_name": "AutoencoderKLWan",
        "base_dim": cfg.channels[0],
        "decoder_base_dim": decoder[0] if residual or cfg.decoder_channels else None,
        "z_dim": cfg.latent_channels,
        "dim_mult": [width // cfg.channels[0] for width in cfg.channels],
        "num_res_blocks": cfg.blocks,
        "attn_scales": [],
        "temperal_downsample": [time == 2 for time, _ in cfg.strides],
        "dropout": 0.0,
        "latents_mean": [float(f"{x:.7g}") for x in mean_C],
        "latents_std": [float(f"{x:.7g}") for x in std_C],
        "is_residual": residual,
        "in_channels": 3 * cfg.patch**2,
        "out_channels": 3 * cfg.patch**2,
        "patch_size": cfg.patch if cfg.patch > 1 else None,
        "scale_factor_temporal": cfg.time_stride,
        "scale_factor_spatial": cfg.space_stride,
    }


def parse_latent_stats(fields: Mapping[str, JSON]) -> tuple[LatentStats, LatentStats]:
    """Return the mean and standard deviation of the latents per channel, which diffusers stores in `config.json`.

    Raises:
        ValueError: as `parse_config`.
    """
    wan = from_tree(_Fields, fields, ignore_unknown=True)
    return np.asarray(wan.latents_mean, np.float32), np.asarray(wan.latents_std, np.float32)


def build_rules(cfg: VAEConfig) -> list[Rule]:
    """Return how diffusers' tensors map to the parameters of a `VAE` with Wan's options."""
    fold = {"p": cfg.patch, "q": cfg.patch}
    kernel = "decoder.head.conv.kernel", "decoder.conv_out.weight", "(c q p) i t y x -> t y x i (p q c)"
    return [
        # diffusers folds pixels into channels column by column, we fold row by row.
        Rule("encoder.conv_in.kernel", "encoder.conv_in.weight", "o (c q p) t y x -> t y x (p q c) o", fold),
        Rule("encoder.conv_in.bias", "encoder.conv_in.bias", "o -> o"),
        *_middle("encoder"),
        *_norm("encoder.head.norm", "encoder.norm_out"),
        *_conv("encoder.head.conv", "encoder.conv_out"),
        *_conv("encoder.quant", "quant_conv"),
        *_conv("decoder.quant", "post_quant_conv"),
        *_conv("decoder.conv_in", "decoder.conv_in"),
        *_middle("decoder"),
        *_norm("decoder.head.norm", "decoder.norm_out"),
        Rule(*kernel, fold),
        Rule("decoder.head.conv.bias", "decoder.conv_out.bias", "(c q p) -> (p q c)", fold),
        *(rule for level in range(len(cfg.channels)) for rule in _encoder_level(cfg, level)),
        *(rule for level in range(len(cfg.channels)) for rule in _decoder_level(cfg, level)),
    ]


def _encoder_level(cfg: VAEConfig, level: int) -> list[Rule]:
    ours, last = f"encoder.levels.{level}", level == len(cfg.channels) - 1
    if cfg.shortcuts == "levels":
        blocks = [f"encoder.down_blocks.{level}.resnets.{block}" for block in range(cfg.blocks)]
        down = f"encoder.down_blocks.{level}.downsampler"
    else:  # 2.1 numbers the blocks and downsamplers of all levels in one list
        first = level * (cfg.blocks + 1)
        blocks = [f"encoder.down_blocks.{first + block}" for block in range(cfg.blocks)]
        down = f"encoder.down_blocks.{first + cfg.blocks}"
    widths = [cfg.channels[max(level - 1, 0)], *[cfg.channels[level]] * cfg.blocks]
    rules = _blocks(ours, blocks, widths)
    if not last:
        rules += _conv(f"{ours}.downsample.space", f"{down}.resample.1", frames=False)
        rules += _conv(f"{ours}.downsample.time", f"{down}.time_conv") if cfg.strides[level][0] == 2 else []
    return rules


def _decoder_level(cfg: VAEConfig, level: int) -> list[Rule]:
    """Return the rules of a level of the decoder; level 0 is the coarsest."""
    widths = (cfg.decoder_channels or cfg.channels)[::-1]
    ours, theirs = f"decoder.levels.{level}", f"decoder.up_blocks.{level}"
    input_width = widths[max(level - 1, 0)] // (2 if level and cfg.upsample_to == "half" else 1)
    blocks = [f"{theirs}.resnets.{block}" for block in range(cfg.blocks + 1)]
    rules = _blocks(ours, blocks, [input_width, *[widths[level]] * (cfg.blocks + 1)])
    if level < len(widths) - 1:
        up = f"{theirs}.upsampler" if cfg.shortcuts == "levels" else f"{theirs}.upsamplers.0"
        rules += _conv(f"{ours}.upsample.space", f"{up}.resample.1", frames=False)
        rules += _conv(f"{ours}.upsample.time", f"{up}.time_conv") if cfg.strides[::-1][level][0] == 2 else []
    return rules


def _blocks(ours: str, theirs: list[str], widths: list[int]) -> list[Rule]:
    rules = []
    for index, name in enumerate(theirs):
        rules += _block(f"{ours}.blocks.{index}", name)
        if widths[index] != widths[index + 1]:
            rules += _conv(f"{ours}.blocks.{index}.skip", f"{name}.conv_shortcut")
    return rules


def _block(ours: str, theirs: str) -> list[Rule]:
    return [
        *_norm(f"{ours}.norm1", f"{theirs}.norm1"),
        *_conv(f"{ours}.conv1", f"{theirs}.conv1"),
        *_norm(f"{ours}.norm2", f"{theirs}.norm2"),
        *_conv(f"{ours}.conv2", f"{theirs}.conv2"),
    ]


def _middle(part: str) -> list[Rule]:
    ours, theirs = f"{part}.middle", f"{part}.mid_block"
    return [
        *_block(f"{ours}.first", f"{theirs}.resnets.0"),
        Rule(f"{ours}.attention.norm.scale", f"{theirs}.attentions.0.norm.gamma", "d y x -> (d y x)", {"y": 1, "x": 1}),
        *_conv(f"{ours}.attention.qkv", f"{theirs}.attentions.0.to_qkv", frames=False),
        *_conv(f"{ours}.attention.out", f"{theirs}.attentions.0.proj", frames=False),
        *_block(f"{ours}.last", f"{theirs}.resnets.1"),
    ]


def _norm(ours: str, theirs: str) -> list[Rule]:
    return [Rule(f"{ours}.scale", f"{theirs}.gamma", "d t y x -> (d t y x)", {"t": 1, "y": 1, "x": 1})]


def _conv(ours: str, theirs: str, *, frames: bool = True) -> list[Rule]:
    """Return the rules of a convolution over (t, y, x), or over (y, x) of each frame."""
    kernel = "o i t y x -> t y x i o" if frames else "o i y x -> t y x i o"
    sizes = {} if frames else {"t": 1}
    return [Rule(f"{ours}.kernel", f"{theirs}.weight", kernel, sizes), Rule(f"{ours}.bias", f"{theirs}.bias", "o -> o")]
