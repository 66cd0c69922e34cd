"""The one legend of dimension letters, and the shapes that cross the rooms' borders.

    B  batch                          D  model width
    T  frames (pixels or latents)     N  attention heads
    Y  height                         H  width of one head
    X  width                          F  feed-forward width
    C  channels                       E  width of the text encoder's output
    L  video tokens of one row        P  features of one patch (pt * py * px * C, in that order)
    S  text tokens of one entry        K  clips of one packed sequence

Locals carry their dimensions as a suffix (`q_BLNH`, `video_BTYXC`). In an annotation, equal letters are equal sizes
within one call; the tests execute the annotations through jaxtyping's import hook.
"""

from jaxtyping import Array, Bool, Float, Int, Key

RandomKey = Key[Array, ""]

Video = Float[Array, "B T Y X C"]  # pixels in [-1, 1], or latents
PerClip = Float[Array, "B"]  # one number a clip: diffusion time, frames a second
Patches = Float[Array, "B L P"]
Tokens = Float[Array, "B L D"]
Positions = Float[Array, "B L 3"]  # (t, y, x) of every token, in units of tokens
PerSegment = Float[Array, "B K"]  # one number for each clip of a packed sequence
Segments = Int[Array, "B L"]  # which clip of a packed sequence a token belongs to; 0 is padding
Heads = Float[Array, "B L N H"]

Text = Float[Array, "B S E"]
TextIds = Int[Array, "B S"]
TextMask = Bool[Array, "B S"]
TextSegments = Int[Array, "B S"]
