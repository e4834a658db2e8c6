#!/usr/bin/env python3
"""Small checkpoints quantised as other tools do it, and what their weights mean.

    make.py OUT

Each folder OUT/NAME is a whole checkpoint (config.json, model.safetensors) of random weights; expected.safetensors holds
some of its weights in f32, as code times scale; the folder NAME-bf16 of some is the same checkpoint with all weights
rounded to bfloat16.  Packing and unpacking of compressed-tensors, AWQ and MXFP4 are done by compressed_tensors and
transformers; GPTQ is written out here after the description in its authors' code.  Needs torch, safetensors,
compressed-tensors 0.20, transformers 5.  Only needed to make the files again: the tests read what is kept."""
import json, os, sys
import numpy as np, torch
from safetensors.torch import save_file
from compressed_tensors.compressors.mxfp4 import MXFP4PackedCompressor
from compressed_tensors.compressors.mxfp8 import MXFP8QuantizationCompressor
from compressed_tensors.compressors.naive_quantized import NaiveQuantizationCompressor
from compressed_tensors.compressors.nvfp4 import NVFP4PackedCompressor
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter
from compressed_tensors.entrypoints.convert.converters.fp8block_dequantizer import FP8BlockDequantizer
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

H, I, V, E, HEADS, KV, D = 32, 64, 32, 2, 2, 2, 16
L = "model.layers.0."


def config(family):
    c = {"model_type": family, "hidden_size": H, "num_hidden_layers": 1, "num_attention_heads": HEADS,
         "num_key_value_heads": KV, "head_dim": D, "vocab_size": V, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
         "rope_theta": 10000.0, "num_experts_per_tok": 1, "eos_token_id": 1, "bos_token_id": 0, "torch_dtype": "bfloat16"}
    if family == "mixtral":
        c |= {"intermediate_size": I, "num_local_experts": E}
    else:
        c |= {"intermediate_size": I, "moe_intermediate_size": I, "num_experts": E, "norm_topk_prob": True}
    return c


def weights(family, seed):
    """(matrices to quantise, the rest) of one layer, by name."""
    torch.manual_seed(seed)
    r = lambda *shape: (torch.randn(*shape) * 0.3)
    m = {L + "self_attn.q_proj": r(HEADS * D, H), L + "self_attn.k_proj": r(KV * D, H), L + "self_attn.v_proj": r(KV * D, H),
         L + "self_attn.o_proj": r(H, HEADS * D)}
    names = (("block_sparse_moe", "w1", "w3", "w2") if family == "mixtral" else ("mlp", "gate_proj", "up_proj", "down_proj"))
    for x in range(E):
        for n, shape in zip(names[1:], ((I, H), (I, H), (H, I))):
            m[f"{L}{names[0]}.experts.{x}.{n}"] = r(*shape)
    rest = {"model.embed_tokens.weight": r(V, H), "lm_head.weight": r(V, H), "model.norm.weight": 1 + 0.1 * r(H),
            L + "input_layernorm.weight": 1 + 0.1 * r(H), L + "post_attention_layernorm.weight": 1 + 0.1 * r(H),
            f"{L}{names[0]}.gate.weight": r(E, H)}
    if family != "mixtral":
        rest |= {L + "self_attn.q_norm.weight": 1 + 0.1 * r(D), L + "self_attn.k_norm.weight": 1 + 0.1 * r(D)}
    return m, {k: v.bfloat16() for k, v in rest.items()}


# ---- methods: matrix -> (tensors by suffix, values in f32) ----

F8 = torch.float8_e4m3fn


def to_f8(w, scale):
    return (w / scale).clamp(-448, 448).to(F8)


def fp8_block(block, scale_type):
    def quantise(w):
        b0, b1 = block
        grid = torch.zeros((-(-w.shape[0] // b0), -(-w.shape[1] // b1)))
        for i in range(grid.shape[0]):
            for j in range(grid.shape[1]):
                grid[i, j] = w[i * b0:(i + 1) * b0, j * b1:(j + 1) * b1].abs().max() / 448
        grid = grid.to(scale_type)
        full = grid.float().repeat_interleave(b0, 0)[:w.shape[0]].repeat_interleave(b1, 1)[:, :w.shape[1]]
        q = to_f8(w, full)
        dq = FP8BlockDequantizer(weight_block_size=block, dtype=torch.float32)._create_dequantized_weight(q, grid)
        return {".weight": q, ".weight_scale_inv": grid}, dq
    return quantise


def fp8_tensor(w):
    s = (w.abs().max() / 448).reshape(())
    q = to_f8(w, s)
    return {".weight": q, ".weight_scale": s, ".input_scale": torch.tensor(0.5)}, q.float() * s


def fp8_row(w):
    s = w.abs().amax(1, keepdim=True) / 448
    q = to_f8(w, s)
    return {".weight": q, ".weight_scale": s}, q.float() * s


def pack_bits(codes, bits, axis):
    """Codes along axis, the first in the lowest bits of the first 32-bit word, across words where they do not divide."""
    c = np.moveaxis(codes.astype(np.uint64), axis, 0)
    out = np.zeros((c.shape[0] * bits // 32,) + c.shape[1:], np.uint64)
    for i in range(c.shape[0]):
        word, shift = divmod(i * bits, 32)
        v = c[i] << np.uint64(shift)
        out[word] |= v & np.uint64(0xffffffff)
        if shift + bits > 32:
            out[word + 1] |= v >> np.uint64(32)
    return np.ascontiguousarray(np.moveaxis(out, 0, axis)).astype(np.uint32).view(np.int32)


def gptq(bits, group, sym=True, order=None, v2=False, bias=False):
    def quantise(w):
        rows, cols = w.shape
        g = cols if group < 0 else group
        idx = np.arange(cols) // g
        if order is not None:
            idx = np.random.default_rng(order).permutation(idx)
        groups, most = -(-cols // g), (1 << bits) - 1
        scales, zeros = np.zeros((groups, rows), np.float16), np.zeros((groups, rows), np.int64)
        x = w.numpy()
        for k in range(groups):
            part = x[:, idx == k]
            if sym:
                scales[k], zeros[k] = 2 * np.abs(part).max(1) / most, (most + 1) // 2
            else:
                lo, hi = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
                scales[k] = (hi - lo) / most
                zeros[k] = np.round(-lo / scales[k].astype(np.float32))
        # A zero point of 0 is stored as all ones by the first format; some are made so here.
        if not sym and not v2:
            zeros[0, ::5] = 0
        s = scales.astype(np.float32)[idx].T
        z = zeros[idx].T
        q = np.clip(np.round(x / s) + z, 0, most).astype(np.int64)
        stored = zeros if v2 else (zeros - 1) & most
        out = {".qweight": torch.from_numpy(pack_bits(q.T, bits, 0)), ".qzeros": torch.from_numpy(pack_bits(stored, bits, 1)),
               ".scales": torch.from_numpy(scales), ".g_idx": torch.from_numpy(idx.astype(np.int32))}
        if bias:
            out[".bias"] = torch.zeros(rows, dtype=torch.float16)
        return out, torch.from_numpy(((q - z).astype(np.float32) * s))
    return quantise


def awq(group):
    def quantise(w):
        rows, cols = w.shape
        g = cols if group < 0 else group
        x = w.T.reshape(cols // g, g, rows)
        lo, hi = x.amin(1).clamp(max=0), x.amax(1).clamp(min=0)
        scales = ((hi - lo) / 15).half()
        zeros = torch.round(-lo / scales.float()).clamp(0, 15).int()
        q = (torch.round(x / scales.float()[:, None]) + zeros[:, None]).clamp(0, 15).int().reshape(cols, rows)
        order = [0, 2, 4, 6, 1, 3, 5, 7]  # the row that each half byte of a word holds
        def pack(t):
            t = t.reshape(t.shape[0], -1, 8)[:, :, order].to(torch.int64)
            v = sum(t[:, :, i] << (4 * i) for i in range(8))
            return torch.where(v >= 1 << 31, v - (1 << 32), v).int().contiguous()
        out = {".qweight": pack(q), ".qzeros": pack(zeros), ".scales": scales}
        iw, iz = AutoAWQConverter.reverse_awq_order(*AutoAWQConverter.unpack_awq(out[".qweight"], out[".qzeros"], 4), 4)
        iw, iz = iw & 15, iz & 15
        dq = (iw - iz.repeat_interleave(g, 0)).float() * scales.float().repeat_interleave(g, 0)
        return out, dq.T.contiguous()
    return quantise


def observe(w, args, scale_type):
    """Scales and zero points of min and max."""
    rows, cols = w.shape
    if args.strategy == "tensor":
        x = w.reshape(1, 1, -1)
    elif args.strategy == "channel":
        x = w.reshape(rows, 1, cols)
    elif args.strategy == "block":
        b0, b1 = args.block_structure
        x = w.reshape(rows // b0, b0, cols // b1, b1).transpose(1, 2).reshape(rows // b0, cols // b1, b0 * b1)
    else:
        x = w.reshape(rows, cols // args.group_size, args.group_size)
    lo, hi = x.amin(-1).clamp(max=0), x.amax(-1).clamp(min=0)
    if args.type == "float":
        return (torch.maximum(hi, -lo) / (448 if args.num_bits == 8 else 6)).to(scale_type), None
    n = 1 << args.num_bits
    if args.symmetric:
        return (torch.maximum(hi, -lo) * 2 / (n - 1)).to(scale_type), None
    s = ((hi - lo) / (n - 1)).to(scale_type)
    return s, (torch.round(-lo / s.float()) - n // 2).clamp(-n // 2, n // 2 - 1).to(torch.int8)


def ct(compressor, scale_type=torch.bfloat16, order=None, **kw):
    def quantise(w):
        args = QuantizationArgs(**kw)
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        idx = None
        x = w
        if order is not None:  # columns are dealt to groups in another order, and the scales are per group
            idx = torch.from_numpy(np.random.default_rng(order).permutation(np.arange(w.shape[1]) // args.group_size))
            x = w[:, torch.argsort(idx, stable=True)]
        scale, zero = observe(x, args, scale_type)
        state = {"weight": x, "weight_scale": scale}
        if zero is not None:
            state["weight_zero_point"] = zero
        if args.strategy == "tensor_group":
            state["weight_global_scale"] = (2688 / w.abs().max()).reshape(1).float()
            state["weight_scale"] = (scale.float() * state["weight_global_scale"]).to(F8).float()
        if compressor in (MXFP4PackedCompressor, MXFP8QuantizationCompressor):
            state["weight_scale"] = 2.0 ** torch.ceil(torch.log2(scale.float()))
        done = compressor.compress(state, scheme)
        back = dict(done)
        if compressor in (PackedQuantizationCompressor, NaiveQuantizationCompressor):
            back["weight_scale"] = done["weight_scale"].float()
            dq = compressor.decompress(back, scheme)["weight"].float()
        elif compressor is NVFP4PackedCompressor:
            import compressed_tensors.compressors.nvfp4.helpers as h
            codes = h.unpack_fp4_from_uint8(done["weight_packed"], w.shape[0], w.shape[1], dtype=torch.float32)
            s = done["weight_scale"].float() / done["weight_global_scale"]
            dq = codes * s.repeat_interleave(16, 1)
        else:
            dq = compressor.decompress(back, scheme)["weight"].float()
        if idx is not None:  # put codes and values back into the matrix's own order
            back = torch.argsort(torch.argsort(idx, stable=True))
            full = unpack(done["weight_packed"], args.num_bits, w.shape)[:, back]
            from compressed_tensors.compressors.pack_quantized import pack_to_int32
            done["weight_packed"] = pack_to_int32(full, args.num_bits)
            done["weight_g_idx"] = idx.int()
            dq = dq[:, back]
        return {"." + k: v.contiguous() for k, v in done.items()}, dq.contiguous()
    return quantise


def unpack(packed, bits, shape):
    from compressed_tensors.compressors.pack_quantized import unpack_from_int32
    return unpack_from_int32(packed, bits, shape)


def ct_config(fmt, **w):
    w = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32, "dynamic": False} | w
    return {"quant_method": "compressed-tensors", "format": fmt, "quantization_status": "compressed", "ignore": ["lm_head"],
            "kv_cache_scheme": None, "config_groups": {"group_0": {"targets": ["Linear"], "weights": w,
                                                                    "input_activations": None, "output_activations": None}}}


def mixed_config():
    c = ct_config("pack-quantized", num_bits=8, strategy="channel", group_size=None)
    c["config_groups"]["group_1"] = ct_config("pack-quantized", group_size=32)["config_groups"]["group_0"]
    return c


def mixed():
    a = ct(PackedQuantizationCompressor, num_bits=8, strategy="channel", symmetric=True)
    b = ct(PackedQuantizationCompressor, num_bits=4, strategy="group", group_size=32, symmetric=True)
    return lambda w: (a if w.shape[1] == I else b)(w)


P, N = PackedQuantizationCompressor, NaiveQuantizationCompressor
GPTQ = {"quant_method": "gptq", "checkpoint_format": "gptq", "damp_percent": 0.1, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "zero_point": True, "version": "gemm", "modules_to_not_convert": ["gate"]}
FIXTURES = {
    "fp8-block": ("qwen3_moe", {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3",
                                "weight_block_size": [24, 24]}, fp8_block((24, 24), torch.float32)),
    "fp8-128": ("mixtral", {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
                fp8_block((128, 128), torch.bfloat16)),
    "fp8-tensor": ("mixtral", {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}, fp8_tensor),
    "fbgemm-fp8": ("qwen3_moe", {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}, fp8_row),
    "gptq-4": ("mixtral", GPTQ | {"bits": 4, "group_size": 32}, gptq(4, 32, bias=True)),
    "gptq-4-order": ("qwen3_moe", GPTQ | {"bits": 4, "group_size": 16, "desc_act": True, "sym": False},
                     gptq(4, 16, sym=False, order=7)),
    "gptq-v2": ("qwen3_moe", {"quant_method": "gptq", "format": "gptq_v2", "bits": 4, "group_size": 32, "sym": False},
                gptq(4, 32, sym=False, v2=True)),
    "gptq-8": ("qwen3_moe", GPTQ | {"bits": 8, "group_size": 32, "sym": False}, gptq(8, 32, sym=False)),
    "gptq-3": ("mixtral", GPTQ | {"bits": 3, "group_size": 32, "sym": False}, gptq(3, 32, sym=False)),
    "gptq-2": ("mixtral", GPTQ | {"bits": 2, "group_size": -1}, gptq(2, -1)),
    "awq": ("mixtral", AWQ | {"group_size": 32}, awq(32)),
    "awq-row": ("qwen3_moe", AWQ | {"group_size": -1, "version": "GEMM"}, awq(-1)),
    "ct-4": ("mixtral", ct_config("pack-quantized"), ct(P, num_bits=4, strategy="group", group_size=32, symmetric=True)),
    "ct-4-order": ("qwen3_moe", ct_config("pack-quantized", group_size=16, symmetric=False, actorder="group"),
                   ct(P, torch.float16, order=3, num_bits=4, strategy="group", group_size=16, symmetric=False)),
    "ct-8": ("mixtral", ct_config("pack-quantized", num_bits=8, strategy="channel", group_size=None, symmetric=False),
             ct(P, num_bits=8, strategy="channel", symmetric=False)),
    "ct-mixed": ("qwen3_moe", mixed_config(), mixed()),
    "ct-int8": ("qwen3_moe", ct_config("int-quantized", num_bits=8, strategy="channel", group_size=None, symmetric=False),
                ct(N, num_bits=8, strategy="channel", symmetric=False)),
    "ct-fp8": ("mixtral", ct_config("float-quantized", num_bits=8, type="float", strategy="channel", group_size=None),
               ct(N, num_bits=8, type="float", strategy="channel", symmetric=True)),
    "ct-fp8-tensor": ("mixtral", ct_config("float-quantized", num_bits=8, type="float", strategy="tensor", group_size=None),
                      ct(N, torch.float32, num_bits=8, type="float", strategy="tensor", symmetric=True)),
    "ct-fp8-block": ("qwen3_moe", ct_config("naive-quantized", num_bits=8, type="float", strategy="block", group_size=None,
                                            block_structure=[16, 32]),
                     ct(N, num_bits=8, type="float", strategy="block", block_structure=[16, 32], symmetric=True)),
    "ct-nvfp4": ("qwen3_moe", ct_config("nvfp4-pack-quantized", type="float", strategy="tensor_group", group_size=16),
                 ct(NVFP4PackedCompressor, num_bits=4, type="float", strategy="tensor_group", group_size=16, symmetric=True)),
    "ct-mxfp4": ("mixtral", ct_config("mxfp4-pack-quantized", type="float", group_size=32),
                 ct(MXFP4PackedCompressor, num_bits=4, type="float", strategy="group", group_size=32, symmetric=True)),
    "ct-mxfp8": ("mixtral", ct_config("mxfp8-quantized", num_bits=8, type="float", group_size=32),
                 ct(MXFP8QuantizationCompressor, num_bits=8, type="float", strategy="group", group_size=32, symmetric=True)),
}
KEEP_BF16 = ("fp8-block", "gptq-4-order", "mxfp4")


def write(out, name, family, q, tensors, expected, rest):
    os.makedirs(f"{out}/{name}", exist_ok=True)
    with open(f"{out}/{name}/config.json", "w") as f:
        json.dump(config(family) | ({"quantization_config": q} if q else {}), f, indent=1)
        f.write("\n")
    save_file({k: v.contiguous() for k, v in (tensors | rest).items()}, f"{out}/{name}/model.safetensors", metadata={"format": "pt"})
    if not q:
        return
    picked = {k: v for k, v in expected.items() if "q_proj" in k or "k_proj" in k or "experts.1.w1" in k or
              "experts.1.w2" in k or "experts.1.gate_proj" in k or "experts.1.down_proj" in k or ".1" == k[-2:]}
    save_file({k: v.contiguous() for k, v in picked.items()}, f"{out}/{name}/expected.safetensors")
    if name in KEEP_BF16:
        write(out, name + "-bf16", family, None, {k: v.bfloat16() for k, v in expected.items()}, None, rest)


def fused_mxfp4(out):
    """gpt-oss's layout: experts in two tensors of bytes."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors
    family = "qwen3_moe"
    m, rest = weights(family, 99)
    attention = {k + ".weight": v.bfloat16() for k, v in m.items() if "self_attn" in k}
    rng, tensors, expected = np.random.default_rng(99), {}, {}
    for n, rows, cols in (("gate_up_proj", 2 * I, H), ("down_proj", H, I)):
        key = f"{L}mlp.experts.{n}"
        blocks = torch.from_numpy(rng.integers(0, 256, (E, rows, cols // 32, 16), dtype=np.uint8))
        scales = torch.from_numpy(rng.integers(122, 126, (E, rows, cols // 32), dtype=np.uint8))
        values = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).transpose(1, 2).contiguous()
        assert values.shape == (E, rows, cols)
        tensors |= {key + "_blocks": blocks, key + "_scales": scales}
        for x in range(E):
            expected[f"{key}.{x}"] = values[x].contiguous()
    write(out, "mxfp4", family, {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}, tensors,
          expected, rest | attention)


def main(out):
    for seed, (name, (family, q, quantise)) in enumerate(FIXTURES.items()):
        m, rest = weights(family, seed)
        tensors, expected = {}, {}
        for k, w in m.items():
            parts, expected[k + ".weight"] = quantise(w)
            tensors |= {k + s: t for s, t in parts.items()}
            error = (expected[k + ".weight"] - w).abs().mean() / w.abs().mean()
            assert error < (0.6 if "gptq-2" in name else 0.4), (name, k, error)  # a wrong order would give about 1
        write(out, name, family, q, tensors, expected, rest)
    fused_mxfp4(out)


main(sys.argv[1])
