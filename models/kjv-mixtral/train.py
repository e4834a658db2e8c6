#!/usr/bin/env python3
"""Train the small Mixtral in this folder on the King James Bible.

The text is in the public domain; Debian's package bible-kjv prints it:

    apt-get install bible-kjv bible-kjv-text
    bible -l100000 'gen1:1-rev22:21' </dev/null >kjv.txt
    pip install torch transformers tokenizers safetensors
    python3 train.py kjv.txt .

Every chapter is one document.  Some chapters are held out; the weights of the
step with the lowest held-out loss are the ones written (bf16, one file, the
tensor names that Hugging Face uses for Mixtral, one tensor per expert).
"""
import argparse, json, math, os, re, time

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

CONFIG = {
    "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "torch_dtype": "bfloat16",
    "vocab_size": 2048, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "hidden_act": "silu",
    "num_local_experts": 8, "num_experts_per_tok": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "max_position_embeddings": 1024, "sliding_window": None, "tie_word_embeddings": False,
    "attention_dropout": 0.0, "router_aux_loss_coef": 0.02, "router_jitter_noise": 0.0,
    "output_router_logits": False, "initializer_range": 0.02, "use_cache": True,
    "bos_token_id": 0, "eos_token_id": 1,
}


def chapters(path):
    """One string a chapter: the verses as lines, without numbers and margin marks."""
    out, verses = [], []
    for line in open(path, encoding="utf-8"):
        m = re.match(r"\s+\d+ (.*)", line)
        if m:
            verses.append(re.sub(r"\s+", " ", re.sub(r"[][{}<>]", "", m.group(1))).strip())
        elif line.strip() and verses:
            out.append("\n".join(verses))
            verses = []
    if verses:
        out.append("\n".join(verses))
    return out


def make_tokenizer(texts):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"], special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)])
    return tok


class Norm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        y = x.float()
        return self.weight * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + CONFIG["rms_norm_eps"]))


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        h, d = c["hidden_size"], c["head_dim"]
        self.nq, self.nkv, self.d = c["num_attention_heads"], c["num_key_value_heads"], d
        self.q_proj = nn.Linear(h, self.nq * d, bias=False)
        self.k_proj = nn.Linear(h, self.nkv * d, bias=False)
        self.v_proj = nn.Linear(h, self.nkv * d, bias=False)
        self.o_proj = nn.Linear(self.nq * d, h, bias=False)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, self.nq, self.d).transpose(1, 2)
        k = self.k_proj(x).view(b, t, self.nkv, self.d).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.nkv, self.d).transpose(1, 2)

        def rope(z):
            z1, z2 = z.chunk(2, -1)
            return z * cos + torch.cat((-z2, z1), -1) * sin

        k, v = (z.repeat_interleave(self.nq // self.nkv, 1) for z in (rope(k), v))
        y = F.scaled_dot_product_attention(rope(q), k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, self.nq * self.d))


class Experts(nn.Module):
    """Top-2 of 8 experts, softmax over all, the two renormalised; plus the balancing loss."""
    def __init__(self, c):
        super().__init__()
        self.e, self.k = c["num_local_experts"], c["num_experts_per_tok"]
        h, i = c["hidden_size"], c["intermediate_size"]
        self.gate = nn.Linear(h, self.e, bias=False)
        self.w1 = nn.Parameter(torch.randn(self.e, i, h) * 0.02)
        self.w3 = nn.Parameter(torch.randn(self.e, i, h) * 0.02)
        self.w2 = nn.Parameter(torch.randn(self.e, h, i) * 0.02)

    def forward(self, x):
        b, t, h = x.shape
        x = x.reshape(-1, h)
        p = self.gate(x).float().softmax(-1)
        w, idx = p.topk(self.k, -1)
        w = w / w.sum(-1, keepdim=True)
        used = F.one_hot(idx, self.e).float().sum(1).mean(0)
        loss = self.e * (used * p.mean(0)).sum()
        flat = idx.reshape(-1)
        order = flat.argsort(stable=True)
        rows = order // self.k
        xs = x[rows]
        ys = []
        w1, w2, w3 = self.w1.unbind(0), self.w2.unbind(0), self.w3.unbind(0)
        for e, part in enumerate(xs.split(flat.bincount(minlength=self.e).tolist())):
            ys.append(F.linear(F.silu(F.linear(part, w1[e])) * F.linear(part, w3[e]), w2[e]))
        y = torch.cat(ys) * w.reshape(-1)[order].unsqueeze(-1)
        return torch.zeros_like(x, dtype=y.dtype).index_add_(0, rows, y).view(b, t, h), loss


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.n1, self.n2 = Norm(c["hidden_size"]), Norm(c["hidden_size"])
        self.attn, self.moe = Attention(c), Experts(c)

    def forward(self, x, cos, sin, drop):
        x = x + F.dropout(self.attn(self.n1(x), cos, sin), drop, self.training)
        y, loss = self.moe(self.n2(x))
        return x + F.dropout(y, drop, self.training), loss


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = Norm(c["hidden_size"])
        self.head = nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)
        for m in self.modules():
            if isinstance(m, (nn.Linear, nn.Embedding)):
                nn.init.normal_(m.weight, std=0.02)

    def forward(self, ids, drop=0.0):
        d, t = self.c["head_dim"], ids.shape[1]
        inv = 1.0 / self.c["rope_theta"] ** (torch.arange(0, d, 2).float() / d)
        a = torch.outer(torch.arange(t).float(), inv)
        a = torch.cat((a, a), -1)
        x, aux = F.dropout(self.embed(ids), drop, self.training), 0.0
        for layer in self.layers:
            x, loss = layer(x, a.cos(), a.sin(), drop)
            aux = aux + loss
        return self.head(self.norm(x)), aux / len(self.layers)

    def tensors(self):
        """The weights under Mixtral's names."""
        out = {"model.embed_tokens.weight": self.embed.weight, "model.norm.weight": self.norm.weight,
               "lm_head.weight": self.head.weight}
        for i, l in enumerate(self.layers):
            p = f"model.layers.{i}."
            out[p + "input_layernorm.weight"] = l.n1.weight
            out[p + "post_attention_layernorm.weight"] = l.n2.weight
            for n in ("q_proj", "k_proj", "v_proj", "o_proj"):
                out[p + f"self_attn.{n}.weight"] = getattr(l.attn, n).weight
            out[p + "block_sparse_moe.gate.weight"] = l.moe.gate.weight
            for e in range(l.moe.e):
                for w in ("w1", "w2", "w3"):
                    out[p + f"block_sparse_moe.experts.{e}.{w}.weight"] = getattr(l.moe, w)[e]
        return {k: v.detach().to(torch.bfloat16).contiguous().clone() for k, v in out.items()}


def write(model, tok, out):
    save_file(model.tensors(), os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    json.dump(CONFIG, open(os.path.join(out, "config.json"), "w"), indent=2)
    json.dump({"bos_token_id": 0, "eos_token_id": 1, "do_sample": True, "temperature": 0.7, "top_p": 0.9},
              open(os.path.join(out, "generation_config.json"), "w"), indent=2)
    json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
               "add_bos_token": True, "model_max_length": CONFIG["max_position_embeddings"],
               "clean_up_tokenization_spaces": False},
              open(os.path.join(out, "tokenizer_config.json"), "w"), indent=2)
    tok.save(os.path.join(out, "tokenizer.json"))


def sample(model, tok, prompt, n=60):
    model.eval()
    ids = tok.encode(prompt).ids
    with torch.no_grad():
        for _ in range(n):
            p = (model(torch.tensor([ids]))[0][0, -1].float() / 0.7).softmax(-1)
            ids.append(int(torch.multinomial(p, 1)))
    model.train()
    return tok.decode(ids)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("text"), a.add_argument("out")
    a.add_argument("--steps", type=int, default=1600)
    a.add_argument("--batch", type=int, default=32)
    a.add_argument("--length", type=int, default=256)
    a.add_argument("--lr", type=float, default=2e-3)
    a.add_argument("--drop", type=float, default=0.1)
    a.add_argument("--threads", type=int, default=0)
    a = a.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    docs = chapters(a.text)
    held = [d for i, d in enumerate(docs) if i % 50 == 7]
    docs = [d for i, d in enumerate(docs) if i % 50 != 7]
    tok = make_tokenizer(docs)

    def stream(texts):
        return torch.tensor([t for d in texts for t in tok.encode(d).ids + [1]])

    train, val = stream(docs), stream(held)
    n = len(val) // a.length * a.length
    val = val[:n].view(-1, a.length)
    model = Model(CONFIG)
    print(f"{len(docs)} chapters, {len(train)} tokens, {sum(p.numel() for p in model.parameters())} parameters", flush=True)
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
                            lr=a.lr, betas=(0.9, 0.95))
    best, start = math.inf, time.time()
    for step in range(a.steps):
        lr = a.lr * min((step + 1) / 100, 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / a.steps)))
        for g in opt.param_groups:
            g["lr"] = lr
        at = torch.randint(0, len(train) - a.length - 1, (a.batch,)).tolist()
        x = torch.stack([train[i:i + a.length + 1] for i in at])
        logits, aux = model(x[:, :-1], a.drop)
        loss = F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten())
        opt.zero_grad(set_to_none=True)
        (loss + CONFIG["router_aux_loss_coef"] * aux).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        if step % 20 == 0:
            print(f"step {step} loss {loss.item():.3f} aux {aux.item():.3f} {time.time() - start:.0f} s", flush=True)
        if step and (step % 200 == 0 or step == a.steps - 1):
            model.eval()
            with torch.no_grad():
                v = sum(F.cross_entropy(model(b[:, :-1])[0].float().flatten(0, 1), b[:, 1:].flatten()).item()
                        for b in val.split(16)) / len(val.split(16))
            model.train()
            print(f"held out {v:.3f}\n{sample(model, tok, 'In the beginning')}", flush=True)
            if v < best:
                best = v
                write(model, tok, a.out)


main()
