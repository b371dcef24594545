"""vLLM's OpenAI-compatible server under load: 200 requests, 16 at a time, in fp32."""

import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
import time

import httpx
import pytest
from engine import random_prompts, transformers_greedy
from models import load, save_dense, save_pruned

from amber_ext import AmberConfig

REQUESTS, CONCURRENCY, COUNT = 200, 16, 8


@contextlib.contextmanager
def server(folder, log, *options):
    """The server's address; what it prints goes to the file ``log``."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(folder),
        "--port",
        str(port),
    ]
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    with log.open("w") as output:
        process = subprocess.Popen([*command, *options], stdout=output, stderr=output, env=environment)
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(240):
                if process.poll() is not None:
                    pytest.fail(f"the server stopped:\n{log.read_text()[-4000:]}")
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{address}/health").status_code == 200:
                        break
                time.sleep(0.5)
            yield address
        finally:
            process.terminate()
            process.wait(30)


async def ask(address, folder, prompts):
    """The answers' token ids, asked for 16 at a time."""
    gate = asyncio.Semaphore(CONCURRENCY)
    async with httpx.AsyncClient(base_url=address, timeout=120) as client:

        async def one(prompt):
            body = {
                "model": str(folder),
                "prompt": prompt,
                "max_tokens": COUNT,
                "temperature": 0,
                "ignore_eos": True,
                "return_token_ids": True,
            }
            async with gate:
                response = await client.post("/v1/completions", json=body)
            assert response.status_code == 200, response.text
            return response.json()["choices"][0]["token_ids"]

        return await asyncio.gather(*(one(prompt) for prompt in prompts))


@pytest.mark.parametrize("engines", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_many_requests_at_once(tmp_path, engines):
    """With two engines: data parallelism."""
    folder = save_pruned(save_dense(tmp_path / "dense"), tmp_path / "pruned", AmberConfig(pattern="8:16"))
    lengths = random.Random(0).choices(range(1, 300), k=REQUESTS)
    prompts = random_prompts(lengths)
    # A tenth has a prefix that another one has as well.
    prompts[::10] = [prompts[0] + prompt for prompt in prompts[::10]]
    options = ["--dtype=float32", "--enforce-eager", "--max-model-len=1024", "--max-num-batched-tokens=256"]
    options += ["--kv-cache-memory-bytes=67108864", "--skip-tokenizer-init", "--max-num-seqs=16"]
    options += [f"--data-parallel-size={engines}"]
    with server(folder, tmp_path / "log", *options) as address:
        answers = asyncio.run(ask(address, folder, prompts))
    assert answers == transformers_greedy(load(folder), prompts, COUNT)
