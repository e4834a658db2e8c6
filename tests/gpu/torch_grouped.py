#!/usr/bin/env python3
"""The experts of bench_products with PyTorch, bf16: a grouped product where this PyTorch has one, else a product an expert.

Prints a table with the same columns; run both on one machine.  Medians by CUDA events; where two of eight experts are at work, calls
take turns, so that weights come from memory and not from the second cache.
"""
import statistics

import torch
import torch.nn.functional as F

HIDDEN, WIDTH, EXPERTS, WARM, CALLS = 4096, 14336, 8, 5, 31
LOADS = [(2, 1), (8, 1), (8, 4), (8, 8), (8, 16), (8, 32), (8, 64), (8, 256), (8, 1024)]


def median(fn):
    """Median of the seconds that fn(call) takes on the device."""
    times = []
    for call in range(WARM + CALLS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        fn(call)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times[WARM:])


def looped(x, gate, up, down, rows):
    """One product after the other: x [experts * rows, HIDDEN], weights [experts, out, in]."""
    parts = []
    for i, part in enumerate(x.split(rows)):
        parts.append((F.silu(part @ gate[i].T) * (part @ up[i].T)) @ down[i].T)
    return torch.cat(parts)


def grouped(x, gate, up, down, rows):
    """The same by torch._grouped_mm."""
    ends = torch.arange(1, gate.shape[0] + 1, device=x.device, dtype=torch.int32) * rows
    hidden = F.silu(torch._grouped_mm(x, gate.transpose(1, 2), offs=ends)) * torch._grouped_mm(x, up.transpose(1, 2), offs=ends)
    return torch._grouped_mm(hidden, down.transpose(1, 2), offs=ends)


def works(fn, *args):
    """Can this PyTorch do it on this device, and is it right?"""
    try:
        got, want = fn(*args).float(), looped(*args).float()
    except (AttributeError, RuntimeError) as error:
        print(f"{fn.__name__}: {str(error).splitlines()[0]}")
        return False
    return bool((got - want).norm() <= 2e-2 * want.norm())


def roofs():
    """Bytes a second of a copy, operations a second of a bf16 product."""
    a = torch.empty(2 << 30, dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    bandwidth = 2 * a.numel() / median(lambda call: b.copy_(a))
    x, w = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return bandwidth, 2 * 8192**3 / median(lambda call: x @ w.T)


def main():
    torch.manual_seed(1)
    bandwidth, rate = roofs()
    gate, up = (torch.randn(EXPERTS, WIDTH, HIDDEN, device="cuda", dtype=torch.bfloat16) / HIDDEN**0.5 for _ in range(2))
    down = torch.randn(EXPERTS, HIDDEN, WIDTH, device="cuda", dtype=torch.bfloat16) / WIDTH**0.5
    x = torch.randn(EXPERTS * max(rows for _, rows in LOADS), HIDDEN, device="cuda", dtype=torch.bfloat16)
    ways = [fn for fn in (looped, grouped) if works(fn, x[: EXPERTS * 16], gate, up, down, 16)]

    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    print(f"copy {bandwidth / 1e9:.0f} GB/s (read and written); bf16 8192^3 {rate / 1e12:.1f} TFLOP/s\n")
    print(f"{'way':7s} {'experts':>7s} {'rows':>5s} {'us':>10s} {'GB/s':>8s} {'of copy':>7s} {'TFLOP/s':>8s} {'of peak':>7s}")
    for fn in ways:
        for active, rows in LOADS:

            def once(call, active=active, rows=rows, fn=fn):
                at = call * active % EXPERTS
                return fn(x[: active * rows], gate[at : at + active], up[at : at + active], down[at : at + active], rows)

            t = median(once)
            moved = 3 * HIDDEN * WIDTH * 2 * active / t
            done = 6 * HIDDEN * WIDTH * active * rows / t
            print(f"{fn.__name__:7s} {active:7d} {rows:5d} {t * 1e6:10.1f} {moved / 1e9:8.0f} {100 * moved / bandwidth:6.1f}% "
                  f"{done / 1e12:8.1f} {100 * done / rate:6.1f}%")


if __name__ == "__main__":
    main()
