"""What amber_ext does with one architecture: a plain dictionary of texts, that the page's table is printed from."""

from __future__ import annotations

import copy
import re
import tempfile

import torch
from architectures.ways import PROMPT, WAYS, run

from amber_ext import AmberConfig, OutstandingSparseConfig, attach_config, decode, quantize_, sparsify_
from amber_ext.layers.pruned_linear import AmberLinear
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.layers.sites import find_linears

YES = "yes"
DENSE_FAILS = "the dense model does not come back either"


def first_line(error):
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:110] if str(error).strip() else ''}"


def targets(model):
    """Every projection that can be pruned, so that no layer's phase goes unseen."""
    try:
        sites = [site for site in find_linears(model) if not site.is_fused]
    except ValueError:
        return ("none",)  # what sparsify_ says then
    wanted = {site.projection for site in sites if site.obstacle is None and site.in_features % 4 == 0}
    fused = {site.projection for site in find_linears(model) if site.is_fused and site.obstacle}
    return tuple(sorted((wanted or {site.projection for site in sites}) - fused))


def forward(model, architecture):
    arguments = architecture.inputs()
    if architecture.is_encoder_decoder:
        arguments["decoder_input_ids"] = PROMPT
    with torch.no_grad():
        return model(**arguments).logits


def save_and_load(model, architecture):
    """Whether a model comes back as it was saved."""
    layers = [type(m) for m in model.modules() if isinstance(m, AmberLinear | QuantizedLinear)]
    try:
        if layers:
            attach_config(model)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            again = type(model).from_pretrained(folder).eval()
    except Exception as error:
        return first_line(error)
    if [type(m) for m in again.modules() if isinstance(m, AmberLinear | QuantizedLinear)] != layers:
        return "other layers"
    return YES if torch.equal(forward(again, architecture), forward(model, architecture)) else "other logits"


def ways_of(model, architecture, dense):
    """Way to phases; what transformers itself cannot do, with nothing pruned, is left out."""
    found = {}
    for way in WAYS:
        try:
            wanted, _ = run(dense, way, architecture)
        except Exception:
            continue
        _, text = run(model, way, architecture)
        # How many calls verify drafts hangs on rounding.
        found[way] = re.sub(r"D\d+( D\d+)*$", "D", text)
        if way == "greedy":
            with decode():
                got, _ = run(model, way, architecture)
            if not torch.equal(got, wanted):
                found[way] += " [other tokens than the dense model, all in decode]"
    return found


def outcome(architecture):
    """Of one entry of the table."""
    model = architecture.build()
    result = {"class": type(model).__name__, "kind": architecture.kind}
    names, stored = targets(model), save_and_load(model, architecture)
    pruned, quantized = copy.deepcopy(model), copy.deepcopy(model)
    try:
        report = sparsify_(pruned, AmberConfig(targets=names))
        result["sparsify"] = YES
        result["pruned"] = f"{sum(row.sparse for row in report.rows)} of {len(report.rows)}"
        result["phases"] = ways_of(pruned, architecture, model)
        result["save and load"] = save_and_load(pruned, architecture) if stored == YES else DENSE_FAILS
    except ValueError as error:
        result["sparsify"] = first_line(error)
    for direction in ("smoothquant", "none"):
        try:
            config = OutstandingSparseConfig(targets=names, direction=direction)
            quantize_(quantized, config, [torch.arange(3, 99).repeat(2).view(2, 96)])
        except Exception as error:
            result.setdefault("quantize", first_line(error))
            continue
        result["quantize"] = YES if direction == "smoothquant" else "without smoothing: " + result["quantize"]
        try:
            result["quantized phases"] = re.sub(
                r"D\d+( D\d+)*$", "D", run(quantized, "greedy", architecture)[1]
            )
        except RuntimeError as error:
            result["quantized phases"] = first_line(error)
            break
        result["save and load quantized"] = (
            save_and_load(quantized, architecture) if stored == YES else DENSE_FAILS
        )
        break
    return result
