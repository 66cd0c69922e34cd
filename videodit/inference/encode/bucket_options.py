"""Options for the buckets of clips, as commands take them and manifests record them."""

from dataclasses import dataclass, replace

from videodit_data.reading.buckets import Buckets

from videodit.provenance import JSON

_SAVED_NAMES = {"resolutions": "sides", "max_upscale": "upsample"}  # in manifests, since the first release


@dataclass(frozen=True)
class BucketOptions:
    """Fields of `Buckets`; None for its default."""

    resolutions: tuple[int, ...] | None = None
    aspects: tuple[float, ...] | None = None
    frames: tuple[int, ...] | None = None
    fps: float | None = None
    max_upscale: float | None = None

    def to_dict(self) -> dict[str, tuple[int, ...] | tuple[float, ...] | float]:
        """Return the fields that are not None."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def to_json(self) -> dict[str, JSON]:
        """Return the fields that are not None, with the names that manifests have."""
        return {_SAVED_NAMES.get(name, name): value for name, value in self.to_dict().items()}

    def apply(self, buckets: Buckets) -> Buckets:
        """Return buckets with these fields in place of their own; raises as `Buckets`."""
        return replace(buckets, **self.to_dict())
