"""The ways to run a model, and which of its rows ran sparse and which dense in each of its calls."""

from __future__ import annotations

import contextlib
from unittest import mock

import torch

from amber_ext.layers import pruned_linear, quantized_linear
from amber_ext.layers.pruned_linear import AmberLinear
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.ops.pattern import Pattern

PROMPT = torch.tensor([[5, 6, 7, 8, 5, 6, 7, 8, 5, 6]])
TOKENS = ("decoder_input_ids", "decoder_inputs_embeds", "input_ids", "inputs_embeds")


ENCODER = "the encoder's "


class Recorder:
    """Counts the rows of every pruned layer, call by call of the model, from what the layers compute.

    Attributes:
        calls: one entry for each call of the model, and one for layers that ran outside of any (an encoder): tokens per
            sequence (0 outside), sequences, and layer to its rows, sparse and dense.
    """

    def __init__(self, model, called):
        self.calls, self.inside, self.layer, self.handles = [], False, None, []
        self.handles.append(called.register_forward_pre_hook(self.begin, with_kwargs=True))
        self.handles.append(called.register_forward_hook(self.end, always_call=True))
        encoder = model.get_encoder() if model.config.is_encoder_decoder else torch.nn.Module()
        encoding = {id(layer) for layer in encoder.modules()}
        for name, layer in model.named_modules():
            if isinstance(layer, AmberLinear | QuantizedLinear) and layer.pattern.n < layer.pattern.m:
                name = f"{ENCODER}{name}" if id(layer) in encoding else name
                self.handles.append(layer.register_forward_pre_hook(self.enter(name)))
                self.handles.append(layer.register_forward_hook(self.leave))

    def begin(self, module, args, kwargs):
        tokens = next((kwargs[name] for name in TOKENS if kwargs.get(name) is not None), None)
        tokens = args[0] if tokens is None else tokens
        self.calls.append((tokens.shape[1], tokens.shape[0], {}))
        self.inside = True

    def end(self, *_):
        self.inside = False

    def enter(self, name):
        def hook(*_):
            self.layer = name

        return hook

    def leave(self, *_):
        self.layer = None

    def count(self, kind, x):
        if self.layer is None:
            return  # an 8-bit layer that is not pruned
        if not self.inside and not (self.calls and self.calls[-1][0] == 0):
            self.calls.append((0, 0, {}))
        rows = self.calls[-1][2].setdefault(self.layer, {"sparse": 0, "dense": 0})
        rows[kind] += x.numel() // x.shape[-1]

    @contextlib.contextmanager
    def __call__(self):
        sparse, dense, w8a8 = (
            pruned_linear.functional.linear,
            torch.nn.functional.linear,
            quantized_linear.linear_w8a8,
        )

        def counted(kind, function):
            def run(x, *args, **kwargs):
                self.count(kind, x)
                return function(x, *args, **kwargs)

            return run

        def counted_w8a8(x, **arguments):
            pattern = Pattern(arguments["pattern"])
            self.count("sparse" if pattern.n < pattern.m else "dense", x)
            return w8a8(x, **arguments)

        functions = mock.Mock(linear=counted("dense", dense))
        with (
            mock.patch.object(pruned_linear.functional, "linear", counted("sparse", sparse)),
            mock.patch.object(pruned_linear, "F", functions),
            mock.patch.object(quantized_linear, "linear_w8a8", counted_w8a8),
        ):
            try:
                yield self
            finally:
                for handle in self.handles:
                    handle.remove()


def expected(calls, prompt, held, cached):
    """What each call must be, from counting tokens alone: of all that came so far, the first are the prompt's.

    Args:
        prompt: tokens of the prompt; held: how many of them the cache holds before the first call.
        cached: False where every call starts from the first token again.

    Returns:
        (prompt tokens, sampled tokens) of each call.
    """
    found, seen = [], held
    if calls and calls[0][0] == prompt:
        seen = 0  # transformers gave the model the whole prompt again
    for length, _, _ in calls:
        begin = seen if cached else 0
        of_prompt = max(0, min(prompt - begin, length))
        found.append((of_prompt, length - of_prompt))
        seen += length
    return found


def phases(calls, prompt, held=0, cached=True):
    """Every call, as ``P`` (prefill), ``D`` (decode) or ``M`` (both) and its tokens; wrong ones with what is wrong.

    ``E`` is an encoder alone. An encoder is prefill whatever the call. In a call with both, a layer whose rows are not the
    call's tokens (an expert's) may run dense; "(dense)" when all do.
    """
    texts = []
    calls = [call for call in calls if call[2]]
    wanted = iter(expected([call for call in calls if call[0]], prompt, held, cached))
    for length, batch, layers in calls:
        of_prompt, sampled = next(wanted) if length else (0, 0)
        encoders = {name: rows for name, rows in layers.items() if not length or name.startswith(ENCODER)}
        wrong = [name for name, rows in encoders.items() if rows["dense"]]
        decoders = {name: rows for name, rows in layers.items() if name not in encoders}
        kind = "".join(name for name, count in zip("PD", (of_prompt, sampled), strict=True) if count) or "E"
        text = {"E": "E", "PD": f"M{of_prompt}+{sampled}"}.get(kind, f"{kind}{length}")
        if kind == "PD":
            least = {"sparse": of_prompt * batch, "dense": sampled * batch}
            split = {
                n
                for n, rows in decoders.items()
                if rows["sparse"] == least["sparse"] and rows["dense"] >= least["dense"]
            }
            wrong += [n for n, rows in decoders.items() if rows["sparse"] and n not in split]
            text += "" if any(rows["sparse"] for rows in decoders.values()) else "(dense)"
        else:
            never = "dense" if kind == "P" else "sparse"
            wrong += [name for name, rows in decoders.items() if rows[never]]
        texts.append(text + (f"[wrong: {', '.join(wrong[:2])}]" if wrong else ""))
    return " ".join(texts)


def cache_of(output):
    found = (output.get(name) for name in ("cache", "past_key_values", "cache_params"))
    return next((cache for cache in found if cache is not None), None)


GENERATE = {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4}
OPTIONS = {
    "greedy": {},
    "beam": {"num_beams": 2},
    "static cache": {"cache_implementation": "static", "disable_compile": True},
    "chunked": {"prefill_chunk_size": 4},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
}
WAYS = (*OPTIONS, "second turn", "bare calls")


def run(model, way, architecture):
    """Runs a model of `table.ARCHITECTURES` one way.

    Returns:
        the tokens or logits, and the text of `phases`.
    """
    recorder = Recorder(model, model.get_submodule(architecture.called))
    inputs, prompt, held = architecture.inputs(), architecture.prompt_length, 0
    decoder_ids = "decoder_input_ids" if architecture.is_encoder_decoder else "input_ids"
    encoded = inputs if architecture.is_encoder_decoder else {}
    with recorder(), torch.no_grad():
        if way in OPTIONS:
            output = model.generate(**inputs, **GENERATE, **OPTIONS[way])
        elif way == "second turn":
            first = model.generate(**inputs, **GENERATE, return_dict_in_generate=True)
            recorder.calls.clear()
            held = (
                first.sequences.shape[1] - 1
            )  # the last token is sampled, and has not been through the model
            turn = torch.cat([first.sequences, PROMPT[:, :5]], -1)
            prompt = turn.shape[1]
            output = model.generate(
                **encoded, **{decoder_ids: turn}, past_key_values=cache_of(first), **GENERATE
            )
        else:
            prompt, cache = 7, None
            for ids in PROMPT[:, :8].split([4, 3, 1], -1):
                options = {"past_key_values": cache} if cache is not None else {}
                output = model(**encoded, **{decoder_ids: ids}, use_cache=True, **options)
                if (cache := cache_of(output)) is None:
                    raise LookupError("the model gives no cache back")
            output = output.logits
    return output, phases(recorder.calls, prompt, held, architecture.cached or way == "bare calls")
