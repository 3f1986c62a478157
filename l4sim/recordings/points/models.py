"""The model of a point: found by its published name, with weights in the formats that the row tells."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from l4sim.errors import InputError
from l4sim.specs.layers import LayerGroup
from l4sim.specs.model import Model, list_models, load_model
from l4sim.specs.quantization import MODULES

# What tables call formats, as `l4sim.specs.dtypes` does.
_FORMATS = {
    "bfloat16": "bfloat16",
    "fp8": "fp8",
    "fp8_static": "fp8",
    "fp8_block": "fp8-block128",
    "nvfp4": "nvfp4",
    "int4_wo": "int4-g128",
    "w4a16_mxfp4": "mxfp4",
}
# Formats that tables do not tell apart: a checkpoint in one of a kind is taken as it was published.
_KINDS = {"fp8": "fp8", "mxfp8": "fp8", "nvfp4": "nvfp4", "mxfp4": "nvfp4", "int4": "int4", "bfloat16": "bfloat16"}
_KINDS["float16"] = "bfloat16"
_EXPERTS = ("expert_up", "expert_down")
# What names of fine-tuned or quantised models have behind the name of the one whose shape they have.
_ENDINGS = re.compile(r"-(instruct|fp8|nvfp4|fp4|bf16|hf)$")


def find_model(name: str, weights: str | None, experts: str | None, folder: Path | None = None) -> Model:
    """A model by its published name, with its weights in a table's formats (None: as it was published).

    It is looked for in ``folder``, whose subfolders are called as on Hugging Face (``openai__gpt-oss-120b`` or
    ``gpt-oss-120b``), then among the bundled ones. One that was published in a format of this kind is taken as it is: a
    table's nvfp4 may be MXFP4, and its fp8 may have scales of any blocks. Another has all linear layers but routers and
    head in the formats told.

    Raises:
        InputError: no such model, or a format that is not known.
    """
    kind = _kind_of(_format(experts or weights)) if experts or weights else None
    found = _published(name, kind, folder)
    if kind is None or _own_kind(found) == kind:
        return found
    # Checkpoints with experts in blocks have all else in blocks: tables tell the rest apart by its kind alone.
    blocks = experts is not None and weights is not None and experts.startswith(f"{weights}_")
    linear = _format(experts if blocks else weights or experts)
    return requantised(found, linear, _format(experts) if experts else linear)


def requantised(model: Model, linear: str, experts: str) -> Model:
    """A model whose linear layers are in one format and whose experts in another; routers, embedding and head stay."""

    def group(own: LayerGroup) -> LayerGroup:
        parts = {matrix.part for matrix in own.matrices(model.hidden)} & set(MODULES)
        formats = {part: experts if part in _EXPERTS else linear for part in parts}
        return replace(own, dtypes=replace(own.dtypes, parts=tuple(sorted(formats.items()))))

    return replace(model, groups=tuple(map(group, model.groups)))


def _published(name: str, kind: str | None, folder: Path | None) -> Model:
    """The checkpoint of that name that is in a format of this kind, if there is one; else the one of that name."""
    spelt = name.rsplit("/", 1)[-1]
    base = spelt.lower()
    while (shorter := _ENDINGS.sub("", base)) != base:
        base = shorter
    candidates = [f"{base}-{kind}", spelt.lower(), base] if kind else [spelt.lower(), base]
    if folder is not None:
        for path in (folder / name.replace("/", "__"), folder / spelt):
            if (path / "config.json").is_file():
                return load_model(str(path))
    bundled = list_models()
    for candidate in candidates:
        if candidate in bundled:
            return load_model(candidate)
    where = "" if folder is None else f" nor under {folder}"
    raise InputError(f"no model '{name}' is bundled{where}: give a folder with its config.json by --models")


def _format(name: str | None) -> str:
    if name not in _FORMATS:
        raise InputError(f"weights in {name}: accepted are {', '.join(_FORMATS)}")
    return _FORMATS[name]


def _kind_of(dtype: str) -> str:
    return _KINDS[dtype.partition("-")[0]]


def _own_kind(model: Model) -> str:
    """Of the format that most of a model's weights are in, by bytes."""
    taken = model.weight_bytes_by_dtype
    return _kind_of(max(taken, key=taken.__getitem__))
