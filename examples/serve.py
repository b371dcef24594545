"""A small HTTP server over a pruned model: one request at a time, prefill sparse, decode dense.

python examples/serve.py 8000
curl localhost:8000 -d '{"prompt": "What is the capital of France?", "max_new_tokens": 16}'
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from amber_ext import AmberConfig, sparsify_
from amber_ext.evaluation.text import greedy_answer
from amber_ext.models import load_model

loaded = load_model("smollm2")
print(sparsify_(loaded.model, AmberConfig(pattern="12:16w")))


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            count = int(request.get("max_new_tokens", 48))
            status, reply = (
                200,
                {"text": greedy_answer(loaded.model, loaded.tokenizer, request["prompt"], count)},
            )
        except (ValueError, TypeError, KeyError) as error:
            status, reply = 400, {"error": f"{error!r}; needed: a JSON object with 'prompt'"}
        body = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
