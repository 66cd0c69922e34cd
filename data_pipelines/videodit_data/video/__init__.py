"""Video files in and out through PyAV: probe, verify, decode, encode. Frames are uint8 RGB [T, Y, X, 3].

Frames are found by presentation time: one pass over the packets (nothing decoded) gives the ascending list of times, so
that frame i is the i-th shown one whatever the rate does. AVI stores no such times: there, and wherever a packet lacks
one, frames are shown in the order of their packets' slots, and decoding starts at the beginning. Frames are turned and
mirrored as a phone wrote, and stretched where pixels are not square; decoding and encoding use one thread, because the
loader runs many clips side by side.
"""

from videodit_data.video.convert import displayed_size, scale_frame
from videodit_data.video.facts import probe, verify
from videodit_data.video.frames import Index, decode, decode_clip, index, resample_pictures, stream
from videodit_data.video.mp4 import encode, write_mp4
from videodit_data.video.opening import Source, VideoError, VideoInfo

__all__ = [
    "Index",
    "Source",
    "VideoError",
    "VideoInfo",
    "decode",
    "decode_clip",
    "displayed_size",
    "encode",
    "index",
    "probe",
    "resample_pictures",
    "scale_frame",
    "stream",
    "verify",
    "write_mp4",
]
