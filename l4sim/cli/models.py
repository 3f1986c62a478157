"""``l4sim models``: what models are made of, how large they are, and how many fit a GPU."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from l4sim.errors import InputError
from l4sim.specs.dtypes import FORMATS
from l4sim.specs.engine_defaults import defaults_of
from l4sim.specs.gpu import GPU, GPUS
from l4sim.specs.kv_groups import KVGroup, KVLayout
from l4sim.specs.layers import LayerGroup
from l4sim.specs.memory import kv_memory_bytes, layout_of
from l4sim.specs.model import Model, list_models, load_model, with_kv_dtype
from l4sim.specs.options import DEFAULTS

LENGTHS_TOKENS = (1024, 32_768, 131_072)
"""Lengths of a sequence at which its KV is told: windows and fixed states make it no multiple of them."""
_FIT_TOKENS = LENGTHS_TOKENS[1]
_RANKS = (1, 2, 4, 8, 16)
_CONFIG = "config.json"


@click.command()
@click.argument("source", required=False, metavar="[NAME|config.json|FOLDER]")
@click.option(
    "--kv-dtype",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", *FORMATS]),
    help="Format of the KV cache; auto: what the checkpoint says, else its dtype.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(source: str | None, kv_dtype: str, as_json: bool) -> None:
    """Show layers, parameters, weights and KV of models: the bundled ones, one, or all in the folders of a FOLDER.

    A model that cannot be read is named with the reason; in JSON, or one of several, it is no error.
    """
    names = _named(source)
    rows = [_row(name, kv_dtype) for name in names]
    if len(rows) == 1 and rows[0]["refused"] is not None and not as_json:
        raise InputError(rows[0]["refused"])
    if as_json:
        click.echo(json.dumps({"models": rows}, indent=2))
    elif len(rows) == 1:
        _print_one(rows[0])
    else:
        _print_all(rows)


def _named(source: str | None) -> list[str]:
    """Names or paths of the models that are meant."""
    if source is None:
        return list(list_models())
    folder = Path(source)
    if source in list_models() or not folder.is_dir() or (folder / _CONFIG).is_file():
        return [source]
    found = sorted(str(path.parent) for path in folder.glob(f"*/{_CONFIG}"))
    if not found:
        raise InputError(f"{source}: no {_CONFIG} there, nor in the folders in it")
    return found


def _row(name: str, kv_dtype: str) -> dict[str, Any]:
    try:
        model = load_model(name)
    except InputError as error:
        path = Path(name)
        if not path.exists():
            raise
        named = path.resolve().parent if path.name == _CONFIG else path
        return {"name": named.name, "refused": str(error), **dict.fromkeys(_DESCRIBED)}
    return describe_model(model if kv_dtype == "auto" else with_kv_dtype(model, kv_dtype))


def describe_model(model: Model) -> dict[str, Any]:
    """What is told of a model, as JSON has it: numbers of weights, bytes, tokens."""
    return {
        "name": model.name,
        "refused": None,
        "parameters": model.parameters,
        "active_parameters": model.active_parameters,
        "predictor_parameters": model.predictor_parameters,
        "left_out": list(model.left_out),
        "dtype": model.dtype,
        "weight_bytes": model.weight_bytes,
        "weight_bytes_by_dtype": model.weight_bytes_by_dtype,
        "kv_bytes_per_token": model.kv_bytes_per_token,
        "kv_bytes_of_sequence": {str(tokens): model.kv_bytes(tokens) for tokens in LENGTHS_TOKENS},
        "kv_blocks": _blocks(model),
        "max_model_len": model.max_model_len,
        "simulated": model.beyond_dense is None,
        "layer_groups": [_group(group, model.hidden) for group in model.groups],
        "fits": [_fit(model, gpu) for gpu in GPUS.values()],
    }


_DESCRIBED = (
    "parameters",
    "active_parameters",
    "predictor_parameters",
    "left_out",
    "dtype",
    "weight_bytes",
    "weight_bytes_by_dtype",
    "kv_bytes_per_token",
    "kv_bytes_of_sequence",
    "kv_blocks",
    "max_model_len",
    "simulated",
    "layer_groups",
    "fits",
)


def _layout(model: Model, ranks: int) -> KVLayout | None:
    """Its KV blocks on one of so many GPUs; None if they are not counted."""
    try:
        return layout_of(model, ranks)
    except InputError:
        return None


def _blocks(model: Model) -> dict[str, Any] | None:
    """Its KV blocks on one GPU, and how many of them sequences take; None if they are not counted."""
    layout = _layout(model, 1)
    if layout is None:
        return None
    return {
        "bytes": layout.block_bytes,
        "groups": [asdict(group) for group in layout.groups or (KVGroup("full", layout.block_tokens),)],
        "of_sequence": {str(tokens): layout.held_blocks(tokens) for tokens in LENGTHS_TOKENS},
    }


def _group(group: LayerGroup, hidden: int) -> dict[str, Any]:
    windows = {kept.window_tokens for kept in group.kept if kept.window_tokens is not None}
    return {
        "layers": group.count,
        "attention": {"kind": group.attention.kind, **asdict(group.attention)},
        "mlp": {"kind": group.mlp.kind, **asdict(group.mlp)},
        "parameters": group.parameters(hidden),
        "active_parameters": group.active_parameters(hidden),
        "weight_bytes": group.weight_bytes(hidden),
        "weight_bytes_by_dtype": group.weight_bytes_by_dtype(hidden),
        "kv_dtype": group.dtypes.kv,
        "kv_bytes_per_token": group.kv_bytes_per_token,
        "window_tokens": min(windows, default=None),
        "state_bytes": group.kv_bytes(0),
    }


def _fit(model: Model, gpu: GPU) -> dict[str, Any]:
    """How many instances one GPU holds, or how many GPUs hold one, each with room for a sequence of 32K tokens."""
    defaults = defaults_of(DEFAULTS.engine_rules)
    share, (seqs, tokens) = defaults.gpu_memory_utilization, defaults.batch(gpu, None, None)
    usable = (share - defaults.graphs_share) * gpu.memory_bytes
    for ranks in _RANKS:
        if any(group.unsplittable(ranks) for group in model.groups):
            continue
        free = kv_memory_bytes(
            model,
            gpu,
            ranks,
            utilization=share,
            graphs_share=defaults.graphs_share,
            max_num_batched_tokens=tokens,
            max_num_seqs=seqs,
        )
        layout = _layout(model, ranks)
        if layout is None:
            sequence = sum(group.of_rank(ranks).kv_bytes(_FIT_TOKENS) for group in model.groups)
        else:
            # Whole blocks; one is vLLM's null block.
            sequence = layout.held_blocks(_FIT_TOKENS) * layout.block_bytes
            free -= layout.block_bytes
        if free >= sequence:
            instances = int(usable // (usable - free + sequence)) if ranks == 1 else 0
            kv_tokens = int(free // sequence) * _FIT_TOKENS if sequence else None
            return {"gpu": gpu.name, "instances_per_gpu": instances, "tensor_parallel": ranks, "kv_tokens": kv_tokens}
    return {"gpu": gpu.name, "instances_per_gpu": 0, "tensor_parallel": None, "kv_tokens": None}


def _print_all(rows: list[dict[str, Any]]) -> None:
    _table(
        ("model", "layers", "parameters", "active", "GiB", *(f"KV at {_k(n)}" for n in LENGTHS_TOKENS), "on"),
        [
            (
                row["name"],
                str(sum(group["layers"] for group in row["layer_groups"])),
                _billions(row["parameters"]),
                _billions(row["active_parameters"]),
                f"{row['weight_bytes'] / 2**30:,.1f}",
                *(_per_token(row, tokens) for tokens in LENGTHS_TOKENS),
                _instances(next(fit for fit in row["fits"] if fit["gpu"] == _SHOWN_GPU)),
            )
            for row in rows
            if row["refused"] is None
        ],
    )
    click.echo(f"\nGiB of weights; KV in bytes per token of a sequence so long; on: instances per {_SHOWN_GPU}.")
    for row in rows:
        if row["refused"] is not None:
            click.echo(f"refused: {row['refused']}")


_SHOWN_GPU = "h200-sxm"


def _print_one(row: dict[str, Any]) -> None:
    click.echo(
        f"{row['name']}: {_billions(row['parameters'])} parameters, {_billions(row['active_parameters'])} active; "
        f"contexts up to {row['max_model_len']:,} tokens"
    )
    click.echo(f"weights: {_gib(row['weight_bytes_by_dtype'])}")
    if row["predictor_parameters"]:
        click.echo(f"not counted: about {_billions(row['predictor_parameters'])} that predict further tokens (MTP)")
    if row["left_out"]:
        click.echo(f"not counted: {', '.join(row['left_out'])}")
    if not row["simulated"]:
        click.echo("shown, not simulated: no profile has seconds of all its layers")
    for group in row["layer_groups"]:
        click.echo(f"\n{group['layers']} x {_sizes(group['attention'])}, {_sizes(group['mlp'])}")
        click.echo(
            f"  {_billions(group['parameters'])} parameters, {_gib(group['weight_bytes_by_dtype'])}; {_kv(group)}"
        )
    click.echo(f"\n{_blocks_line(row['kv_blocks'])}\n")
    _table(
        ("a sequence of", "KV MiB", "bytes per token"),
        [
            (
                f"{_k(tokens)} tokens",
                f"{row['kv_bytes_of_sequence'][str(tokens)] / 2**20:,.1f}",
                _per_token(row, tokens),
            )
            for tokens in LENGTHS_TOKENS
        ],
    )
    click.echo()
    _table(
        ("GPU", "instances per GPU", f"KV tokens at {_k(_FIT_TOKENS)} each"),
        [
            (fit["gpu"], _instances(fit), "-" if fit["kv_tokens"] is None else f"{fit['kv_tokens']:,}")
            for fit in row["fits"]
        ],
    )


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as they need to be, whatever the terminal: names are no use cut short."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        first, *others = (text.rjust(width) for text, width in zip(row, widths, strict=True))
        click.echo("  ".join((first.strip().ljust(widths[0]), *others)))


def _gib(by_dtype: dict[str, int]) -> str:
    shares = " + ".join(f"{taken / 2**30:,.1f} in {dtype}" for dtype, taken in by_dtype.items())
    return f"{sum(by_dtype.values()) / 2**30:,.1f} GiB ({shares})" if by_dtype else "no weights"


def _kv(group: dict[str, Any]) -> str:
    """What a sequence keeps in such layers."""
    told = []
    if group["kv_bytes_per_token"]:
        window = f" over a window of {group['window_tokens']:,}" if group["window_tokens"] else ""
        told.append(f"KV {group['kv_bytes_per_token']:,} bytes per token in {group['kv_dtype']}{window}")
    if group["state_bytes"]:
        told.append(f"a fixed state of {group['state_bytes'] / 2**20:,.1f} MiB")
    return ", ".join(told) or "no KV"


def _blocks_line(blocks: dict[str, Any] | None) -> str:
    """What a KV block holds."""
    if blocks is None:
        return "KV blocks: not counted, as some entries stand for several tokens"
    tables = [
        f"{group['count']} x {_TABLES[group['kind']].format(window=group['window_tokens'])} "
        f"({group['block_tokens']:,} tokens a block)"
        for group in blocks["groups"]
    ]
    return f"KV blocks of {blocks['bytes']:,} bytes; a sequence's tables: {', '.join(tables)}"


_TABLES = {
    "full": "all tokens",
    "window": "a window of {window:,}",
    "chunk": "a chunk of {window:,}",
    "state": "states",
}


def _instances(fit: dict[str, Any]) -> str:
    ranks = fit["tensor_parallel"]
    if ranks is None:
        return f"none up to {_RANKS[-1]} GPUs"
    return str(fit["instances_per_gpu"]) if ranks == 1 else f"1/{ranks}"


def _per_token(row: dict[str, Any], tokens: int) -> str:
    return f"{row['kv_bytes_of_sequence'][str(tokens)] / tokens:,.0f}"


def _sizes(kind: dict[str, Any]) -> str:
    """A kind of attention or MLP with the sizes that matter first to whoever reads."""
    shown = [f"{label} {kind[name]:,}" for name, label in _SHOWN.items() if kind.get(name)]
    return str(kind["kind"]) + (f" ({', '.join(shown)})" if shown else "")


_SHOWN = {
    "heads": "heads",
    "value_heads": "value heads",
    "kv_heads": "KV heads",
    "head_dim": "head dim",
    "kv_rank": "rank",
    "tokens_per_entry": "tokens per entry",
    "state_dim": "state",
    "experts": "experts",
    "per_token": "per token",
    "intermediate": "width",
    "shared": "shared width",
}


def _billions(count: int) -> str:
    return f"{count / 1e9:,.2f} B"


def _k(tokens: int) -> str:
    return f"{tokens // 1024}K"
