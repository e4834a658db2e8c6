#!/usr/bin/env python3
"""Make kjv-mixtral/expected.json: what transformers computes in float64 from the trained model of models/kjv-mixtral.

    python3 kjv.py MODEL [OUT]       OUT: a file, kjv-mixtral/expected.json here if not given

As make.py's, with "text" beside the tokens (they begin with <s>) and, for the greedy continuation, "greedy_text".  A
trained model is not chosen by its margins: greedy continuations stop short of the first gap below 1e-3."""
import os, sys

import make
import torch
from tokenizers import Tokenizer

TEXTS = ["In the beginning God created the heaven and the earth.",
         "And Moses spake unto the children of Israel, saying,",
         "The LORD is my shepherd; I shall not want. He maketh me to lie down in green pastures: he leadeth me beside",
         "Now in the fifteenth year of the reign of Tiberius Caesar, Pontius Pilate being governor of Judaea, and Herod being "
         "tetrarch of Galilee, and his brother Philip tetrarch of Ituraea and of the region of Trachonitis, and Lysanias the "
         "tetrarch of Abilene, Annas and Caiaphas being the high priests, the word of God came"]
GREEDY = 24


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    model = sys.argv[1]
    out = sys.argv[2] if len(sys.argv) == 3 else os.path.join(make.HERE, "kjv-mixtral", "expected.json")
    torch.set_num_threads(1)
    tok = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
    ref = make.Reference(model)
    rows = []
    for text in TEXTS:
        ids = tok.encode(text).ids
        steps = GREEDY
        while True:
            s = ref.sequence(ids, steps)
            if s["greedy_gap"] >= 1e-3 or steps == 1:
                break
            steps -= 1
        moved = (ref.run(ids, patched=False)[0] - ref.run(ids)[0]).abs().max().item()
        rows.append({"text": text, **s, "greedy_text": tok.decode(s["greedy"])})
        print(f"{len(ids):4} tokens, {-sum(s['logprobs']) / max(1, len(ids) - 1):.3f} nats each, margin {min(s['margin']):.1e}, "
              f"{steps} greedy (gap {s['greedy_gap']:.1e}, margin {s['greedy_margin']:.1e}), patch {moved:.1e}: {rows[-1]['greedy_text']!r}")
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    make.write_expected(out, {"schema": 1, "name": "kjv-mixtral", "family": "mixtral", "dtype": "bf16"}, rows)
    print(f"{os.path.getsize(out)} bytes")


if __name__ == "__main__":
    main()
