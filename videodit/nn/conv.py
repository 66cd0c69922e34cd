"""Causal 3D convolutions, and the cache with which they run over a clip chunk by chunk."""

import einops
import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from videodit.nn.param import gather_param, param
from videodit.parallel.rules import constrain, count_shards


class FrameCache:
    """The last input frames of every causal layer, carried from one temporal chunk of a clip to the next.

    Layers ask for their history in the order in which they run, so a whole pass has one list of tails and no names.
    A whole clip is the case of a single chunk: chunked and whole results are equal by construction.

    Args:
        tails: `next_tails()` of the chunk before, or None at the start of a clip.
    """

    def __init__(self, tails: tuple[Array, ...] | None = None):
        self.starts_clip = tails is None
        self._tails = list(tails or ())
        self._next: list[Array] = []

    def prepend(self, x_BTYXC: Array, frames: int, start: Array | None = None) -> Array:
        """Prepend `frames` frames of history to `x`, and keep the new history.

        At the start of a clip the history is `start`, or zeros.
        """
        if not self.starts_clip:
            tail = self._tails[len(self._next)]
        elif start is not None:
            tail = start
        else:
            tail = jnp.zeros((x_BTYXC.shape[0], frames, *x_BTYXC.shape[2:]), x_BTYXC.dtype)
        extended = jnp.concatenate([tail, x_BTYXC], axis=1)
        self._next.append(extended[:, extended.shape[1] - frames :])
        return extended

    def next_tails(self) -> tuple[Array, ...]:
        return tuple(self._next)


def _conv3d(x_BTYXC: Array, w: Array, strides: tuple[int, int, int], pad: tuple[int, int]) -> Array:
    return lax.conv_general_dilated(
        x_BTYXC, w, strides, [(0, 0), pad, pad], dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


def _conv3d_as_2d(x_BTYXC: Array, w: Array, strides: tuple[int, int, int], pad: tuple[int, int]) -> Array:
    """Compute `_conv3d` with the taps in time folded into channels: XLA's CPU backend is fast in 2D only."""
    taps, stride = w.shape[0], strides[0]
    last = x_BTYXC.shape[1] - taps
    windows = [x_BTYXC[:, i : i + last + 1 : stride] for i in range(taps)]
    frames = windows[0].shape[1]
    y = lax.conv_general_dilated(
        einops.rearrange(jnp.concatenate(windows, axis=-1), "b t y x c -> (b t) y x c"),
        einops.rearrange(w, "t y x i o -> y x (t i) o"),
        strides[1:],
        [pad, pad],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return einops.rearrange(y, "(b t) y x c -> b t y x c", t=frames)


def _shard_side(sides: tuple[int, int], stride: int) -> tuple[str | None, str | None]:
    """Choose the side of a frame to shard: the longer, or the other if only that divides, or none.

    Shards hold whole strides: XLA's gradients are wrong otherwise.
    """
    height, width = sides
    fits = {
        "height": height // stride % count_shards("height") == 0,
        "width": width // stride % count_shards("width") == 0,
    }
    first, second = ("height", "width") if height > width else ("width", "height")
    sharded = first if fits[first] else second if fits[second] else None
    return tuple(name if name == sharded else None for name in ("height", "width"))


class CausalConv3d(nnx.Module):
    """Convolution over (time, y, x) whose receptive field ends with the present frame.

    Args:
        kernel: taps in (time, y and x).
        stride: strides in (time, y and x).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: tuple[int, int] = (3, 3),
        stride: tuple[int, int] = (1, 1),
        zero_init: bool = False,
        rngs: nnx.Rngs,
    ):
        self.kernel_size, self.stride = kernel, stride
        time, space = kernel
        init = jax.nn.initializers.variance_scaling(
            1.0, "fan_in", "normal", in_axis=(0, 1, 2, 3), out_axis=4, batch_axis=()
        )
        self.kernel = param(
            rngs.params(),
            jax.nn.initializers.zeros if zero_init else init,
            (time, space, space, in_channels, out_channels),
            (None, None, None, "conv_in", "conv_out"),
            inputs=4,
        )
        self.bias = param(rngs.params(), jax.nn.initializers.zeros, (out_channels,), ("conv_out",))

    def __call__(
        self, x_BTYXC: Float[Array, "B T Y X C"], cache: FrameCache, start: Float[Array, "B t Y X C"] | None = None
    ) -> Float[Array, "B t2 y x c"]:
        """`start` is the history at the start of a clip in place of zeros (`kernel - stride` frames)."""
        (time, space), (stride_t, stride_s) = self.kernel_size, self.stride
        if time > stride_t:
            x_BTYXC = cache.prepend(x_BTYXC, time - stride_t, start)
        # Strided space pads below and right only, as Stable Diffusion's and Wan's autoencoders do.
        pad = (0, space - stride_s) if stride_s > 1 else (space // 2, space // 2)
        strides = (stride_t, stride_s, stride_s)
        dims = ("batch", None, *_shard_side(x_BTYXC.shape[2:4], stride_s), None)
        y_BTYXC = self._convolve(constrain(x_BTYXC, dims), strides, pad) + gather_param(self.bias, x_BTYXC.dtype)
        return constrain(y_BTYXC, dims)

    def _convolve(self, x_BTYXC: Array, strides: tuple[int, int, int], pad: tuple[int, int]) -> Array:
        kernel = gather_param(self.kernel, x_BTYXC.dtype)
        if x_BTYXC.shape[1] < self.kernel_size[0]:
            return jnp.zeros((x_BTYXC.shape[0], 0, *x_BTYXC.shape[2:4], kernel.shape[-1]), x_BTYXC.dtype)
        return lax.platform_dependent(
            x_BTYXC,
            kernel,
            cpu=lambda x, w: _conv3d_as_2d(x, w, strides, pad),
            default=lambda x, w: _conv3d(x, w, strides, pad),
        )
