"""Kills processes while they save over a model, and says what each left: run by test_whole_folders.py.

Arguments: an empty folder, how one folder takes the place of another ("exchange" or "two_renames"), how many
times after its start a process is killed at, beside before each of its events.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from amber_ext import OutstandingSparseConfig, folders, load_quantized, quantize_, save_quantized

# What Python's audit hooks tell of files and folders: a process can be killed right before any of these.
EVENTS = ("open", "os.", "shutil.", "ctypes.dlsym", "fcntl.")


def small(seed):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=20, **sizes)).eval()
    quantize_(model, OutstandingSparseConfig(direction="none"))
    return model


def fingerprint(model):
    return float(model.model.embed_tokens.weight.detach().sum())


def save_in_a_child(model, folder, kill_at=None):
    """The process that saves; it kills itself before its event number ``kill_at``, else it tells that it is done."""
    reader, writer = os.pipe()
    if (child := os.fork()) != 0:
        os.close(writer)
        return child, reader
    count = 0

    def hook(event, arguments):
        nonlocal count
        if event.startswith(EVENTS):
            count += 1  # before the kill, which is an event itself
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        sys.addaudithook(hook)
        save_quantized(model, folder)
        os.write(writer, b"done")
        status = 0
    finally:
        os._exit(status)


def finish(child, reader):
    """Whether the child was done before it was killed."""
    _, status = os.waitpid(child, 0)
    told = os.read(reader, 4)
    os.close(reader)
    assert os.WIFSIGNALED(status) or status == 0
    return bool(told)


def main():
    top, way, times = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if way == "two_renames":
        folders._exchange = lambda one, other: False
    logging.disable_progress_bar()
    models = [small(0), small(1)]
    names = {fingerprint(model): number for number, model in enumerate(models)}
    folder = top / "model"
    save_quantized(models[0], folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "more").mkdir()
    (folder / "more" / "notes.txt").write_text("mine too")

    start = time.monotonic()
    finish(*save_in_a_child(models[1], folder))
    seconds = time.monotonic() - start

    current, outcomes = 1, []

    def outcome(at_event, after):
        nonlocal current
        child, reader = save_in_a_child(models[1 - current], folder, at_event)
        if after is not None:
            time.sleep(after)
            os.kill(child, signal.SIGKILL)
        finished = finish(child, reader)
        there = folder.is_dir()
        found = names[fingerprint(load_quantized(folder))]
        kept = [(folder / name).read_text() for name in ("notes.txt", "more/notes.txt")]
        outcomes.append(
            {
                "finished": finished,
                "there": there,
                "new": found != current,
                "kept": kept == ["mine", "mine too"],
            }
        )
        current = found

    # Until none is left to be killed at: what the last one left is swept first, so their number is not always the same.
    event = 0
    while not outcomes or not outcomes[-1]["finished"]:
        outcome(event := event + 1, None)
    for i in range(times):
        outcome(None, seconds * i / times)
    save_quantized(models[0], folder)
    print(json.dumps({"outcomes": outcomes, "left": sorted(os.listdir(top))}))


main()
