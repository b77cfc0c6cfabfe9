#!/usr/bin/env python3
"""Times torch's own attention on the shapes of gpu_shapes.txt and sets it beside kvfathom-bench.

Run by scripts/gpu-check, after its bench stage and on the same device. Writes torch.json into the
results folder: for every shape and every fused backend that takes it, the median time of one call
with its spread, and kvfathom's own from bench-<kernel>.json where there is one. What torch cannot
run is listed with torch's own words. Judges nothing.
"""
import argparse
import json
import pathlib
import statistics
import sys
import time

BACKENDS = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION")
REPETITIONS = 15
SECONDS_PER_REPETITION = 0.02


def read_cases(path):
    """(kernel, format, {dimension: value}) of every attention line."""
    for line in pathlib.Path(path).read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        kernel, formats, *shapes = line.split()
        for fmt in formats.split(","):
            for shape in shapes:
                dims = dict(part.split("=") for part in shape.split(","))
                yield kernel, fmt, {name: int(value) for name, value in dims.items()}


def tensors(torch, kernel, dims):
    """q, k, v as [sequences, heads, tokens, dim], bf16, random."""
    n, tokens, heads = dims.get("n_sequences", 1), dims["tokens"], dims["n_heads"]

    def random(*size):
        return torch.randn(size, device="cuda", dtype=torch.bfloat16)

    if kernel == "mla_decode":  # V is a view of the cached latent
        latent = random(n, 1, tokens, 576)
        return random(n, heads, 1, 576), latent, latent[..., :512]
    n_kv, dim = dims["n_kv_heads"], dims["head_dim"]
    n_queries = tokens if kernel == "prefill_attention" else 1
    return random(n, heads, n_queries, dim), random(n, n_kv, tokens, dim), random(n, n_kv, tokens, dim)


def cost(kernel, dims):
    """Bytes of cache read and useful FLOPs of one call (model/ops counts the queries as well)."""
    n, tokens, heads = dims.get("n_sequences", 1), dims["tokens"], dims["n_heads"]
    if kernel == "mla_decode":
        return 2.0 * n * tokens * 576, 2.0 * n * tokens * heads * (576 + 512)
    row = 2.0 * n * tokens * dims["n_kv_heads"] * 2 * dims["head_dim"]
    pairs = tokens * (tokens + 1) / 2 if kernel == "prefill_attention" else tokens
    return row, 4.0 * n * heads * dims["head_dim"] * pairs


def time_calls(torch, call):
    """Seconds of one call: `REPETITIONS` runs of many calls in a row, between two events."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def run(n_calls):
        start.record()
        for _ in range(n_calls):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e-3 / n_calls

    n_calls = max(1, round(SECONDS_PER_REPETITION / max(run(1), 1e-6)))
    return sorted(run(n_calls) for _ in range(REPETITIONS))


def measure(torch, kernel, dims, backend):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    q, k, v = tensors(torch, kernel, dims)

    def call():
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=kernel == "prefill_attention", enable_gqa=q.shape[1] != k.shape[1])

    with sdpa_kernel(getattr(SDPBackend, backend)):
        times = time_calls(torch, call)
    median = statistics.median(times)
    read_bytes, flops = cost(kernel, dims)
    return {"median_s": median, "low_s": times[0], "high_s": times[-1],
            "cache_bytes_per_s": read_bytes / median, "flops_per_s": flops / median}


def ours(results, kernel, fmt, dims):
    """What kvfathom-bench wrote about the same case, whole; nothing where it did not run."""
    path = results / f"bench-{kernel}.json"
    if not path.exists():
        return None
    wanted = [f"{name}:{value}" for name, value in dims.items()]
    for run in json.loads(path.read_text()).get("benchmarks", []):
        parts = run["name"].split("/")
        if fmt in parts and all(part in parts for part in wanted):
            return run
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", required=True, help="gpu_shapes.txt")
    parser.add_argument("--results", required=True, type=pathlib.Path, help="where bench-*.json lie")
    parser.add_argument("--max-seconds", type=float, default=300.0)
    arguments = parser.parse_args()
    document = {"torch": None, "device": None, "rows": []}
    target = arguments.results / "torch.json"
    try:
        import torch
        if not torch.cuda.is_available():
            raise ImportError("torch sees no CUDA device")
    except ImportError as error:
        document["reason"] = str(error)
        target.write_text(json.dumps(document, indent=1) + "\n")
        print(f"no comparison with torch: {error}")
        return 0
    document["torch"] = torch.__version__
    document["device"] = torch.cuda.get_device_name()
    torch.manual_seed(1)
    started = time.monotonic()
    for kernel, fmt, dims in read_cases(arguments.shapes):
        if kernel == "bandwidth":
            continue
        row = {"kernel": kernel, "format": fmt, "shape": dims, "torch": {}, "refused": {},
               "kvfathom_bench": ours(arguments.results, kernel, fmt, dims)}
        document["rows"].append(row)
        if fmt != "bf16":
            row["refused"]["all"] = f"torch has no attention over a {fmt} cache"
            continue
        for backend in BACKENDS:
            if time.monotonic() - started > arguments.max_seconds:
                row["refused"][backend] = "the time is used up"
                continue
            try:
                row["torch"][backend] = measure(torch, kernel, dims, backend)
            except (RuntimeError, TypeError, AttributeError) as error:
                row["refused"][backend] = str(error).splitlines()[0]
            torch.cuda.empty_cache()
        for backend, timing in row["torch"].items():
            print(f"{kernel} {fmt} {dims}: torch {backend} {timing['median_s'] * 1e6:.1f} us")
        target.write_text(json.dumps(document, indent=1) + "\n")
    target.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
