"""Text to score and to calibrate with, and a model's greedy answer to a prompt."""

from __future__ import annotations

from pathlib import Path

import torch


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file. Raises ValueError when it is missing, empty or not UTF-8."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"text: {str(path)!r} is not a file; it must be a UTF-8 text file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"text: {str(path)!r} is not UTF-8: {error}") from None
    if not text.strip():
        raise ValueError(f"text: {str(path)!r} is empty; it must hold text to score")
    return text


def builtin_text() -> str:
    """English text that comes with every Python: the language reference of `help()`."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def tokenize(tokenizer: object, text: str, limit: int) -> torch.Tensor:
    """The first ``limit`` token ids of ``text``, ``[<= limit]`` int64, no special tokens added."""
    if limit < 2:
        raise ValueError(f"tokens: {limit} is not allowed; at least 2 are needed")
    # Long files stay cheap: take as much text as it needs, and one token more, whose end the cut may
    # have changed.
    size = limit * 8
    while True:
        ids = tokenizer(text[:size], return_tensors="pt", add_special_tokens=False).input_ids[0]
        if len(ids) > limit or size >= len(text):
            return ids[:limit]
        size *= 4


def greedy_answer(model: torch.nn.Module, tokenizer: object, prompt: str, max_new_tokens: int = 48) -> str:
    """The model's greedy reply to a user's message, through its chat template where it has one."""
    if tokenizer.chat_template:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
    else:
        ids = tokenizer(prompt, return_tensors="pt")
    ids = ids.to(model.device)
    output = model.generate(**ids, max_new_tokens=max_new_tokens, do_sample=False)
    return tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip()
