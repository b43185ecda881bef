"""What palate uses of a vLLM, over real HTTP: dense models `W + s B A`, one per adapter."""

import copy
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch

from palate.engine.vllm.groups import GroupMixer, GroupRow, GroupTag
from palate.models.adapter import load_adapter
from palate.models.load import Base


class StandIn(ThreadingHTTPServer):
    """A server of one base, whose adapters come and go.

    Attributes:
        loaded: Adapters loaded at run time, in the order of loading.
        most_loaded: Most of them at a time.
        max_listed: Longest list of log-probabilities it gives.
        may_load: Whether adapters can be loaded at run time.
        faults: Status codes to answer completions with first.
        has_plugin: Whether it mixes groups of rows; without, it ignores what they say.
        n_seats: Most rows of a group that it runs in one step.
        dies_after: Tokens of a stream after which the connection breaks.
        is_well: What it says of itself.
        unload_status: What it answers when an adapter is to go.
        pause: Seconds before every token of a stream.
        n_left: Streams whose reader left early.
    """

    daemon_threads = True

    def __init__(self, base: Base, members: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.base = base
        self.lock = threading.Lock()
        self.models = {"base": base.model}
        for name, folder in members.items():
            self.add(name, folder)
        self.loaded: list[str] = []
        self.unloaded: list[str] = []
        self.most_loaded = 0
        self.max_listed = 10_000
        self.may_load = True
        self.faults: list[int] = []
        self.has_plugin = True
        self.n_seats = 100
        self.dies_after: int | None = None
        self.is_well = True
        self.unload_status = 200
        self.pause = 0.0
        self.n_left = 0
        self.rooms: dict[str, Room] = {}
        self.calls: list[dict] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def add(self, name: str, folder: Path) -> None:
        model = copy.deepcopy(self.base.model)
        for module in model.modules():
            module._forward_hooks.clear()
        layers = dict(model.named_modules())
        with torch.no_grad():
            for layer, factor in load_adapter(folder).items():
                matrix = layers[layer].weight + factor.scale * factor.up @ factor.down
                layers[layer].weight = torch.nn.Parameter(matrix, requires_grad=False)  # unties
        self.models[name] = model

    def forget(self) -> None:
        """As a restart: what was loaded at run time is gone."""
        for name in list(self.models):
            if name.startswith("palate-soup"):
                del self.models[name]

    @torch.inference_mode()
    def log_probs(self, model: str, ids: list[int]) -> torch.Tensor:
        with self.lock:
            logits = self.models[model](torch.tensor([ids])).logits[0, -1]
        return torch.log_softmax(logits.float(), dim=-1)


@contextmanager
def standing_in(base: Base, members: dict[str, Path]) -> Iterator[StandIn]:
    """A server while it is used."""
    running = StandIn(base, members)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


class Room:
    """Where the rows of a group meet at every step, mixed by the plugin's own code."""

    def __init__(self, n_rows: int, n_seats: int) -> None:
        self.mixer = GroupMixer()
        self.n_rows = min(n_rows, n_seats)
        self.logits: dict[int, torch.Tensor] = {}
        self.taken: dict[int, int] = {}
        self.n_steps = 0
        self.changed = threading.Condition()

    def take(self, tag: GroupTag, drawn: list[int], logits: torch.Tensor) -> int:
        with self.changed:
            step = self.n_steps
            self.logits[tag.row] = logits
            self.mixer.rows[tag.row] = GroupRow(tag, list(drawn))
            if len(self.logits) < self.n_rows:
                self.changed.wait_for(lambda: self.n_steps > step, timeout=10)
            else:
                stacked = torch.full((max(self.logits) + 1, len(logits)), -torch.inf)
                for row, said in self.logits.items():
                    stacked[row] = said
                chosen = self.mixer.apply(stacked).argmax(dim=-1).tolist()
                self.taken = {row: chosen[row] for row in self.logits}
                self.logits, self.mixer.rows = {}, {}
                self.n_steps += 1
                self.changed.notify_all()
            return self.taken[tag.row]


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        if self.path == "/health":
            self.reply(200 if self.server.is_well else 503, {"error": {"message": "dead"}})
            return
        self.reply(200, {"object": "list", "data": [{"id": n} for n in self.server.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("_lora_adapter"):
            self.adapter(body)
            return
        if isinstance(body["prompt"], str):
            body["prompt"] = self.server.base.tokenizer(body["prompt"])["input_ids"]
        self.server.calls.append(body)
        fault = self.server.faults.pop(0) if self.server.faults else 200
        try:
            GroupTag.from_xargs(body.get("vllm_xargs") if self.server.has_plugin else None)
        except ValueError as error:
            self.reply(400, {"error": {"message": str(error)}})
            return
        if fault != 200:
            self.reply(fault, {"error": {"message": "no luck"}})
        elif body["model"] not in self.server.models:
            self.reply(404, {"error": {"message": f"The model {body['model']} does not exist."}})
        elif body.get("stream"):
            self.stream(body)
        else:
            choice, n_prompt = next(self.choices({**body, "max_tokens": 1})), len(body["prompt"])
            usage = {
                "prompt_tokens": n_prompt,
                "completion_tokens": 1,
                "total_tokens": n_prompt + 1,
            }
            self.reply(200, {"choices": [choice], "usage": usage})

    def adapter(self, body: dict) -> None:
        server, name = self.server, body["lora_name"]
        if self.path.endswith("/unload_lora_adapter") and server.unload_status != 200:
            self.reply(server.unload_status, {"error": {"message": "gone"}})
        elif not server.may_load:
            self.reply(404, {"detail": "Not Found"})
        elif self.path.endswith("/load_lora_adapter"):
            if name in server.models:
                self.reply(400, {"error": {"message": f"'{name}' has already been loaded."}})
                return
            server.add(name, Path(body["lora_path"]))
            server.loaded.append(name)
            now = sum(n.startswith("palate-soup") for n in server.models)
            server.most_loaded = max(server.most_loaded, now)
            self.reply(200, {})
        elif name in server.models:
            del server.models[name]
            server.unloaded.append(name)
            self.reply(200, {})
        else:
            self.reply(404, {"error": {"message": f"The lora adapter '{name}' cannot be found."}})

    def choices(self, body: dict) -> Iterator[dict]:
        ids, stops = list(body["prompt"]), set(body.get("stop_token_ids", ()))
        n_prompt, room = len(ids), None
        tag = GroupTag.from_xargs(body.get("vllm_xargs") if self.server.has_plugin else None)
        if tag is not None:
            with self.server.lock:
                room = Room(len(tag.shares), self.server.n_seats)
                room = self.server.rooms.setdefault(tag.group, room)
        for place in range(body["max_tokens"]):
            said = self.server.log_probs(body["model"], ids)
            biased = said.clone()
            for name, by in (body.get("logit_bias") or {}).items():
                biased[int(name)] += by
            token = int(biased.argmax())
            if tag is not None and room is not None:
                token = room.take(tag, ids[n_prompt:], biased)
            wanted = body.get("logprobs") or 1
            values, tops = said.topk(min(wanted, len(said), self.server.max_listed))
            ids.append(token)
            finish = "length" if place + 1 == body["max_tokens"] else None
            yield {
                "index": 0,
                "text": "",
                "finish_reason": "stop" if token in stops else finish,
                "logprobs": {
                    "tokens": [f"token_id:{token}"],
                    "token_logprobs": [float(said[token])],
                    "top_logprobs": [
                        {
                            f"token_id:{t}": v
                            for t, v in zip(tops.tolist(), values.tolist(), strict=True)
                        }
                    ],
                    "text_offset": [0],
                },
            }
            if token in stops:
                return

    def stream(self, body: dict) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if self.server.dies_after is not None:
            self.send_header("Content-Length", "1000000")  # which are never sent
        self.end_headers()
        try:
            for place, choice in enumerate(self.choices(body)):
                time.sleep(self.server.pause)
                if place == self.server.dies_after:
                    return
                self.wfile.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
                self.wfile.flush()
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            self.server.n_left += 1  # the reader left early, as it may

    def reply(self, status: int, body: dict) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_args) -> None:
        return
