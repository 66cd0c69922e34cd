"""The features of a TensorFlow Datasets data set that are video, captions and id, chosen from its features.json.

TFDS cannot make its own `Video` feature without TensorFlow. But frames are stored as a sequence of encoded images, so
`reduce_features` gives the features that are used with byte strings instead of images, which need none.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from videodit_data.boundary.typed_json import shorten, show_key

_FEATURES = "tensorflow_datasets.core.features"
_TEXT = {"pythonClassName": f"{_FEATURES}.text_feature.Text", "text": {}}
_SEQUENCE = f"{_FEATURES}.sequence_feature.Sequence"
_DICT = f"{_FEATURES}.features_dict.FeaturesDict"

# What a clip can be made of, the likelier first.
_VIDEO = ("frames", "array", "image")


@dataclass(frozen=True)
class Field:
    """One feature.

    kind: "frames" (encoded images in a sequence), "array" (uint8 [T, Y, X, C]), "image", "text", "texts", "label",
    "number" or "other".
    """

    path: tuple[str, ...]
    kind: str
    is_a: str  # what TFDS calls it
    json: Mapping[str, object]

    @property
    def name(self) -> str:
        """Return the name in users' notation: the names on the path to the feature, joined by slashes."""
        return "/".join(self.path)


@dataclass(frozen=True)
class ServedFields:
    """The features that are served; captions are texts or a label."""

    video: Field
    captions: tuple[Field, ...]
    id: Field | None


def fields(features: Mapping[str, Any]) -> list[Field]:
    """Return all features of a features.json, nested ones too, by name."""
    return sorted(_walk(features, (), False), key=lambda field: field.path)


def choose(candidates: Sequence[Field], video: str, captions: Sequence[str], id: str) -> ServedFields:
    """Return the named features; where none is named, the only possible one (for `id`, none).

    ValueError, with all features listed, when a name is not there or of the wrong kind, or the choice is not clear.
    """
    listed = ", ".join(f"{field.name} ({field.is_a})" for field in candidates)
    named = {field.name: field for field in candidates}

    def get(name: str, kinds: Sequence[str], what: str) -> Field:
        if name not in named or named[name].kind not in kinds:
            raise ValueError(f"'{name}' is not a feature that can be {what}; there are {listed}.")
        return named[name]

    if video:
        clip = get(video, _VIDEO, "the video (uint8 frames of 1 or 3 channels)")
    else:
        kinds = ("frames", "array") if any(field.kind in ("frames", "array") for field in candidates) else ("image",)
        able = [field for field in candidates if field.kind in kinds]
        if len(able) != 1:
            count = "several features" if able else "no feature"
            raise ValueError(f"{count} can be the video (uint8 frames of 1 or 3 channels): say video=NAME; {listed}.")
        clip = able[0]
    if captions:
        caption_fields = tuple(get(name, ("text", "texts", "label"), "a caption (text or label)") for name in captions)
    else:
        caption_fields = tuple(
            field for field in candidates if field.kind in ("text", "texts", "label") and field.name != id
        )
        if len(caption_fields) > 1:
            raise ValueError(f"several features can be the caption: say caption=NAME or caption=NAME+NAME; {listed}.")
    return ServedFields(clip, caption_fields, get(id, ("text", "number"), "the id (text or number)") if id else None)


def reduce_features(features: Mapping[str, Any], served: ServedFields) -> dict[str, Any]:
    """Return the features.json of the served features, images as byte strings."""
    paths = {field.path for field in (served.video, *served.captions, served.id) if field is not None}
    reduced_features = _keep(features, (), paths)
    assert reduced_features is not None
    return reduced_features


def value(example: Any, field: Field) -> Any:
    """Return a field's value in an example. ValueError when it has none."""
    try:
        for name in field.path:
            example = example[name]
    except (KeyError, TypeError):
        raise ValueError(f"it has no {field.name}") from None
    return example


def _walk(feature: Any, path: tuple[str, ...], sequence: bool) -> Iterator[Field]:
    feature = _object(feature, path)
    is_a = _class(feature)
    if "featuresDict" in feature and is_a == "FeaturesDict":
        features = _object(_object(feature["featuresDict"], path).get("features", {}), path)
        for name, inner in features.items():
            yield from _walk(inner, (*path, name), sequence)
    elif "sequence" in feature and is_a == "Sequence" and not sequence:
        inner = _object(_object(feature["sequence"], path).get("feature"), path)
        if "featuresDict" in inner:
            yield from _walk(inner, path, True)
        else:
            kind = {"image": "frames", "text": "texts"}.get(_kind(inner, path), "other")
            yield Field(path, kind, f"Sequence of {_class(inner)}", feature)
    elif sequence:
        kind = {"image": "frames", "text": "texts"}.get(_kind(feature, path), "other")
        yield Field(path, kind, f"{is_a} in a sequence", feature)
    else:
        yield Field(path, _kind(feature, path), is_a, feature)


def _object(value: Any, path: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"features.json: {_show(path)} has {shorten(value)} where a JSON object is expected")
    return value


def _show(path: tuple[str, ...]) -> str:
    return "/".join(map(show_key, path)) or "it"


def _class(feature: Mapping[str, Any]) -> str:
    return str(feature.get("pythonClassName")).rpartition(".")[2]


def _kind(feature: Mapping[str, Any], path: tuple[str, ...]) -> str:
    """Return the kind of a feature outside sequences; of TFDS's own classes only, as others may store anything."""
    match _class(feature):
        case "Video":
            return "frames" if _pictures(feature.get("video"), 4, path) else "other"
        case "Image":
            return "image" if _pictures(feature.get("image"), 3, path) else "other"
        case "Text":
            return "text"
        case "ClassLabel":
            return "label"
        case "Tensor" | "Scalar":
            tensor = _object(feature.get("tensor"), path)
            shape, dtype = _shape(tensor, path), str(tensor.get("dtype"))
            if shape == () and dtype == "string":
                return "text"
            if shape == () and dtype.startswith(("int", "uint")):
                return "number"
            return "array" if dtype == "uint8" and _pictures(tensor, 4, path) else "other"
    return "other"


def _pictures(value: Any, rank: int, path: tuple[str, ...]) -> bool:
    content = _object(value, path)
    shape = _shape(content, path)
    return content.get("dtype", "uint8") == "uint8" and len(shape) == rank and shape[-1] in (1, 3)


def _shape(content: Mapping[str, Any], path: tuple[str, ...]) -> tuple[int, ...]:
    dimensions = _object(content.get("shape", {}), path).get("dimensions", [])
    if not isinstance(dimensions, list) or not all(re.fullmatch(r"-?\d{1,18}", str(size)) for size in dimensions):
        raise ValueError(f"features.json: {_show(path)} has a shape that is not a list of whole numbers")
    return tuple(map(int, dimensions))


def _keep(feature: Mapping[str, Any], path: tuple[str, ...], paths: set[tuple[str, ...]]) -> dict[str, Any] | None:
    if not any(each[: len(path)] == path for each in paths):
        return None
    if "featuresDict" in feature:
        children = {
            name: _keep(each, (*path, name), paths) for name, each in feature["featuresDict"]["features"].items()
        }
        inner = {name: each for name, each in children.items() if each is not None}
        return {"pythonClassName": _DICT, "featuresDict": {"features": inner}}
    if "sequence" in feature:
        sequence = feature["sequence"] | {"feature": _keep(feature["sequence"]["feature"], path, paths)}
        return {"pythonClassName": _SEQUENCE, "sequence": sequence}
    if "video" in feature:
        length = (_shape(feature["video"], path) or (-1,))[0]
        return {"pythonClassName": _SEQUENCE, "sequence": {"feature": _TEXT, "length": str(length)}}
    return _TEXT if "image" in feature else dict(feature)
