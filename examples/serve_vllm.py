"""Serves a pruned SmolLM2 with vLLM's OpenAI-compatible server, and asks it something with OpenAI's client.

python examples/serve_vllm.py 8000 "What is the capital of France?"
"""

import subprocess
import sys
import tempfile
import time

import httpx
import openai

from amber_ext import AmberConfig, sparsify_
from amber_ext.integrations.transformers import attach_config
from amber_ext.models import load_model

port, question = int(sys.argv[1]), sys.argv[2]
address = f"http://127.0.0.1:{port}"

with tempfile.TemporaryDirectory() as folder:
    loaded = load_model("smollm2")
    print(sparsify_(loaded.model, AmberConfig(pattern="12:16w")))
    attach_config(loaded.model)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)

    # What a folder is pruned to stands in its config.json; the server needs no option for it.
    options = [f"--port={port}", "--served-model-name=smollm2", "--max-model-len=2048", "--max-num-seqs=16"]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={folder}", *options]
    server = subprocess.Popen([*command, "--kv-cache-memory-bytes=536870912"])
    try:
        while True:
            if server.poll() is not None:
                sys.exit(f"the server stopped with code {server.returncode}")
            try:
                httpx.get(f"{address}/health").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(1)
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
        messages = [{"role": "user", "content": question}]
        answer = client.chat.completions.create(
            model="smollm2", messages=messages, max_tokens=32, temperature=0
        )
        print(answer.choices[0].message.content)
    finally:
        server.terminate()
        server.wait()
