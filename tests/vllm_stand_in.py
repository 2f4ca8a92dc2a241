"""What TRL's asynchronous trainer asks of `vllm serve`, answered by transformers on the loopback."""

import asyncio
import json
import queue
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import torch
from asynchronous import home
from transformers import AutoModelForCausalLM


class Server:
    """
    The HTTP interface of `vllm serve`, with a model of transformers; `with Server(model_dir) as server`.

    Weights come by `wire`, in the place of NCCL. While it is paused it keeps the requests that it works on, as vLLM
    does in the mode that TRL asks for.
    """

    longest = 64  # tokens of prompt and completion

    def __init__(self, model_dir: str):
        self.model = AutoModelForCausalLM.from_pretrained(model_dir).eval()
        self.eos = self.model.config.eos_token_id
        self.calls: list[str] = []
        self.wire: queue.Queue = queue.Queue()
        self.lock, self.running = threading.Lock(), threading.Event()
        self.running.set()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_of": self}))
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.running.set()
        self.http.shutdown()
        self.http.server_close()  # waits for its requests
        self.thread.join()

    def get(self, path: str) -> dict:
        return {
            "/health": {},
            "/v1/models": {"data": [{"max_model_len": self.longest}]},
            "/server_info": {"vllm_config": {"model_config": {"dtype": "torch.float32"}, "lora_config": None}},
            "/get_world_size": {"world_size": 1},
        }[path]

    def post(self, path: str, body: dict) -> dict:
        if path == "/v1/completions":
            return self.completion(body)
        self.calls.append(path)
        if path == "/pause":
            self.running.clear()
        elif path == "/resume":
            self.running.set()
        elif path == "/update_weights":
            weights = self.wire.get(timeout=10)
            assert [name for name, _ in weights] == body["update_info"]["names"]
            assert not self.running.is_set()
            with self.lock:
                self.model.load_state_dict(dict(weights))
        return {}

    @torch.no_grad()
    def completion(self, body: dict) -> dict:
        ids, logps = list(body["prompt"]), []
        generator = torch.Generator().manual_seed(body["seed"])
        for _ in range(body["max_tokens"]):
            self.running.wait()
            with self.lock:
                logits = self.model(input_ids=torch.tensor([ids])).logits[0, -1]
            of_all = (logits / body["temperature"]).log_softmax(-1)
            ids.append(int(torch.multinomial(of_all.exp(), 1, generator=generator)))
            logps.append(float(of_all[ids[-1]]))
            if ids[-1] == self.eos:
                break
        return {"choices": [{"token_ids": ids[len(body["prompt"]) :], "logprobs": {"token_logprobs": logps}}]}


class _Handler(BaseHTTPRequestHandler):
    server_of: Server

    def do_GET(self):
        self._answer(self.server_of.get(self.path.partition("?")[0]))

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(self.server_of.post(self.path.partition("?")[0], json.loads(body or "{}")))

    def _answer(self, answer: dict) -> None:
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


class Transfer:
    """TRL's protocol of a weight transfer: its own HTTP client, and a queue in the place of NCCL."""

    def __init__(self, server: Server):
        self.server, self.client = server, home().VLLMClient(server.url, 10.0)

    def init_weight_transfer(self):
        self.client.wait_for_server_ready()
        assert self.client.get_dtype() == "torch.float32"
        self.client.init_weight_transfer_engine({"world_size": self.client.get_world_size() + 1})

    def pause(self):
        self.client.pause()

    def resume(self):
        self.client.resume()

    def send_weights(self, iterator):
        weights = [(name, tensor.clone()) for name, tensor in iterator]
        self.client.start_weight_update()
        self.server.wire.put(weights)
        self.client.update_weights({"names": [name for name, _ in weights]})
        self.client.finish_weight_update()

    def destroy(self):
        pass


class Worker:
    """TRL's own rollout loop in a thread, with the HTTP client of the standard library: aiohttp is not needed."""

    def __init__(self, server: Server, **loop_kwargs):
        self.rollout_buffer, self.metrics_queue = queue.Queue(maxsize=16), queue.Queue()
        self.version, self.heartbeat, self.failed = *(SimpleNamespace(value=0) for _ in range(2)), threading.Event()
        self.loop_kwargs = {"vllm_server_url": server.url, "queue_maxsize": 16, **loop_kwargs}
        self.loop = self.thread = None

    def start(self):
        class Loop(home().AsyncRolloutWorker._loop_cls):
            async def _run_loops(self, stop_event):
                try:
                    await asyncio.gather(self._generate_loop(stop_event), self._score_loop(stop_event))
                finally:
                    await self._loop.shutdown_default_executor()

            async def _post(self, path, payload, timeout):
                data = json.dumps(payload).encode()
                request = urllib.request.Request(f"{self.vllm_server_url}{path}", data)

                def ask() -> dict:
                    with urllib.request.urlopen(request, timeout=timeout) as answer:
                        return json.load(answer)

                return await asyncio.to_thread(ask)

        self.loop = Loop(
            rollout_buffer=self.rollout_buffer,
            model_version_value=self.version,
            heartbeat_value=self.heartbeat,
            failed_event=self.failed,
            exception_info_queue=queue.Queue(),
            metrics_queue=self.metrics_queue,
            **self.loop_kwargs,
        )
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def stop(self):
        self.loop._loop.call_soon_threadsafe(self.loop._stop_event.set)
        self.thread.join()

    def update_model_version(self, model_version: int):
        self.version.value = model_version

    def check_health(self, stale_after_s: float):
        assert not self.failed.is_set()
