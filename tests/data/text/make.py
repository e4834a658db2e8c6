#!/usr/bin/env python3
"""Write the fixtures of the tokenizer tests: small tokenizer.json files, and what the `tokenizers` library makes of
awkward strings with them.

    pip install tokenizers==0.23.3
    python3 make.py            # into this folder; the same files every time

For every NAME there are NAME.json (the tokenizer; for kjv, that of models/kjv-mixtral) and NAME.jsonl:
    line 1    {"before": [ids], "after": [ids]}    what add_special puts around a text
    then      [text, ids, plain, skipped]          ids of the text without special tokens; decodings of
                                                    before + ids + after, with and without special tokens;
                                                    0 for a decoding that is the text itself
              [null, ids, plain, skipped]          only to be decoded: ids in any order
"""
import collections, json, os, random, unicodedata
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

HERE = os.path.dirname(os.path.abspath(__file__))

# The first article of the Universal Declaration of Human Rights.
ARTICLE = """All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and should act towards one another in a spirit of brotherhood.
Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.
Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de conscience et doivent agir les uns envers les autres dans un esprit de fraternité.
Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y conciencia, deben comportarse fraternalmente los unos con los otros.
Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и должны поступать в отношении друг друга в духе братства.
Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.
Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. İstanbul'da ısı.
Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi.
يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا
כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.
सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।
มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ
人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。
すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等である。
모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.
"""
CODE = """int main(int argc, char **argv)
{
\tfor (size_t i = 0; i < n; i++) {
\t\tif (x[i] != 0xff && y[i] >= 1.5e-3) { total += x[i] * 12345; } /* don't */
\t}
    return total == 0 ? 1 : 0;   // it's what we've got, I'll say; they're here, I'd go, I'm sure
}
def f(self, x=None):\r\n    return {"key": [1, 22, 333, 4444], 'other': "it''s"}\r\n\r\n\r\n
https://example.org/a/b?c=d&e=f#g  user@example.org  2024-01-31 12:34:56.789 +1 (555) 010-9999 $1,234.56 50% ©®™
"""


def corpus(characters=None):
    """Something like language, without a file: the article, code, and the names of characters."""
    names = [unicodedata.name(chr(c), "") for c in range(0x20, 0x3000)]
    lines = (ARTICLE + CODE).split("\n") * 8
    lines += [n.lower() for n in names[::3]] + [n.capitalize() + "." for n in names[1::7]]
    if characters:  # the most frequent only; the trainer's own limit_alphabet breaks ties at random
        count = collections.Counter("".join(lines))
        keep = set(sorted(count, key=lambda c: (-count[c], c))[:characters])
        lines = ["".join(c for c in line if c in keep) for line in lines]
    return lines


# ---- strings ----

TRICKY = [
    " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "\r", " \n", "\n ", " \n ", "  \n  \n", "\t\t x", "a", " a", "a ", "  a",
    "a  ", "a  b", "a   b", "a\nb", "a \n b", "a\n\n\nb", "a\r\nb", "a\r\n\r\nb", "x\t\ty", " \t \n \r\n ", "     end",
    "a\u0085b", "a\u00a0b", "a \u00a0 b", "\u00a0\u00a0", "\u180e", "a\u180eb", " \u180e ", "\u200b", "a\u200bb", "a\u200c\u200db",
    "\u2028", "a\u2028b\u2029c", "\u3000全角\u3000", "\u2003em\u2003", "\u1680ogham", "a\u2000\u2001 b", "\u202f5\u202f000", "\ufeffbom", "\u2060x", "\x0b\x0c", "a\x0bb\x0cc",
    "\x1c\x1d\x1e\x1f", "\x01\x02\x7f", "\x1b[31mred\x1b[0m", "\u0080\u0081\u009f",
    "it's", "It'S", "IT'S", "don't DON'T Don'T", "we've WE'VE we'Ve", "I'll I'LL i'lL", "they're THEY'RE", "I'd I'D I'm I'M",
    "it'\u017f", "it'\u017f s", "'\u017f'S's", "'s't're've'm'll'd", "'S'T'RE'VE'M'LL'D", "''s", "'''", "rock'n'roll", "O'Neill's", "it\u2019s",
    "'st 'sx 'red 'very 'mother 'llama 'dog", " 's 't", "'\u212a", "x'\u0130", "\u0130\u0131Ii", "\u1e9eß", "ﬁ ﬀ ﬆ ﬅ",
    "0", "12", "123", "1234", "12345678901234567890", "1,234.56", "1 2 3", "٠١٢٣٤٥٦٧٨٩", "०१२३", "๑๒๓", "１２３４", "Ⅷ", "½", "²³¹", "x²+y³", "①②③",
    "\U0001d7ce\U0001d7cf\U0001d7d0\U0001d7d1", "3.14e-10", "0x1F600", "1st 2nd 3rd", "a1b2c3", "\u3007\u4e00\u4e8c", "൰൱൲", "𐄇𐄈𐄉",
    "\u00e9", "e\u0301", "\u212b", "A\u030a", "\u1e69", "s\u0323\u0307", "s\u0307\u0323", "\u0958", "\u2126\u212a", "\uac00", "\u1100\u1161", "\u1100\u1161\u11a8", "\uac00\u11a8",
    "a\u0315\u0300\u05ae\u0300b", "\u0344", "\u0f73\u0f75", "\u1e0a\u0323", "d\u0307\u0323", "\u0301", "\u0301\u0302a", "a" + "\u0301" * 40, "a" + "\u0316\u0301" * 40,
    "Zalgo: z\u0351\u036b\u0343\u0354a\u0300\u0311l\u0313\u0322g\u0348\u0353o\u0330", "ﷺ", "ﷺﷺﷺ", "㎏㎞", "ｱｲｳﾞ", "\uf900\ufa0e\U0002f800", "\u0f43\u0fb9", "\u2adc",
    "\U00011935\U00011930", "\U00011938", "a\u0898b", "a\u08ca\u0301", "a\u1ac1\u0316", "\U0001e4ec\u0301", "\u0c3c\u0c4d", "\u32ff", "\ua7f2\U00010781", "\U0001f16c", "\U0001fbf5",
    "😀", "😀😁", "a😀b", " 😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "1️⃣", "🤷🏻‍♀️ ok", "🧑‍💻code", "\U0001fae8\U0001fadf", "☎☎️", "©️",
    "שלום עולם", "مرحبا بالعالم", "\u202eabc\u202c", "\u200fאב\u200e", "بِسْمِ ٱللَّهِ", "שָׁלוֹם",
    "你好世界", "你好，世界！", "こんにちは世界", "ﾊﾝｶｸ", "안녕하세요 세계", "한국어", "漢字かな交じり文123", "𠀀𠀁𠮷", "\U0002ebf0\U00031350", "中文English混合", "ภาษาไทย", "ไม่มีเว้นวรรค",
    "नमस्ते", "क्षत्रिय", "தமிழ்", "ខ្មែរ", "မြန်မာ", "ⴰⵎⴰⵣⵉⵖ", "ᏣᎳᎩ", "𐐷𐐲", "𓀀𓁐", "\U00010d4a\U00010d50\U00010d70", "\u1c89\u1c8a", "\ua7cb\ua7cd", "\U00016100\U0001611e\U00016130",
    "\ue000", "\U000f0000", "\U0010fffd", "\ufdd0", "\uffff", "\U0010ffff", "\ufffd", "\ufffe", "a\ufffdb", "\u0378", "\U000e0041\U000e007f", "\ufe0f", "\u034f", "\u00ad", "so\u00adft",
    "<unk>", "<s>", "</s>", "<s>hello</s>", "<|endoftext|>", "a<|endoftext|>b", "<|im_start|>user\nhi<|im_end|>\n", "<|im_start|>", "<|im_", "<|im_start|", "<s", "<s><s>", "< s >", "<S>",
    "<0x41>", "<0xZZ>", "<0xE4><0xBD>", "<0x0A>\n", "<|begin_of_text|>", "[INST] hi [/INST]", "<<<>>>", "<|<|endoftext|>|>", "<pad><mask>",
    "\u2581", "\u2581\u2581", "a\u2581b", " \u2581 ", "\u2581a", "Ġ", "ĠĠa", "Ċ", "Ā", "ĀāĂ", "Ń", "Ø", "ï¿½",
    "x" * 300, "ab" * 200, "的" * 120, " " * 100, "\n" * 80, "0" * 97, "!" * 77, "=" * 120, "-_" * 60, "aA" * 50, "é" * 90, "\u0301" * 70, "😀" * 40, " \n" * 40, "'" * 50, "\t" * 33 + "x",
    "CamelCaseString", "snake_case_string", "SCREAMING_CASE", "kebab-case", "HTTPServer2Go", "iPhone", "McDonald's", "ǅungla ǈ ǋ", "ÀÉÎõü", "ΑΒΓ αβγ ς", "ДЖЗ джз",
    "...", "…", "?!", "--", "—", "“quoted”", "«guillemets»", "(a)", "[b]", "{c}", "a/b\\c", "a_b", "__init__", "$x", "#tag", "@user", "&amp;", "100%", "~^`|", "¿qué?", "a‿b", "̈a",
    "if (x) {\n\treturn 1;\n}\n", "    indented\n        more\n", "def f():\r\n    pass\r\n", "a\n\n b\n\n  c", "end. \n\nStart", "word\n", "\n\tword", "trailing   \n", "x \r\n y",
    "The quick brown fox jumps over the lazy dog.", "  The  quick\tbrown\n", "Hello, world!", "hello", "Hello world! How's it going? I've 3 cats & 2 dogs.",
]
WORDS = (ARTICLE + CODE).split()
RANGES = [(0x20, 0x7f), (0xa0, 0x250), (0x250, 0x370), (0x370, 0x530), (0x530, 0x900), (0x900, 0xe00), (0xe00, 0x1200),
          (0x1200, 0x2000), (0x2000, 0x2c00), (0x2c00, 0x3400), (0x4e00, 0x9fff), (0xa000, 0xd7ff), (0xe000, 0xf900),
          (0xf900, 0x10000), (0x10000, 0x12000), (0x12000, 0x18000), (0x1b000, 0x1d000), (0x1d000, 0x1f000),
          (0x1f000, 0x20000), (0x20000, 0x32400), (0xe0000, 0xe0200), (0x300, 0x370), (0x1, 0x20)]
SPACES = [" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2009", "   ", "\n\n", "\u0085"]
GLUE = ["'s", "'S", "'ll", "\u017f", "'", "123", "1", "!", "...", "\u200d", "\u0301", "\u0323", "\ufe0f", "\u2581", "_", "-", "é", "e\u0301"]


def character(r):
    while True:
        c = r.randrange(*r.choice(RANGES))
        if not 0xd800 <= c < 0xe000:
            return chr(c)


def awkward(r, special):
    """One random string of up to a few dozen characters."""
    kinds = ["any", "words", "script", "marks", "mix", "mix", "tokens"]
    kind = r.choice(kinds)
    if kind == "any":
        return "".join(character(r) for _ in range(r.randint(1, 14)))
    if kind == "words":
        return r.choice(["", " ", "\n"]) + "".join(r.choice(WORDS) + r.choice([" ", " ", " ", "  ", "\n", ""])
                                                    for _ in range(r.randint(1, 7)))
    if kind == "script":
        lo, hi = r.choice(RANGES)
        one = lambda: chr(r.randrange(lo, hi))
        return "".join(one() if r.random() < .85 else r.choice(SPACES) for _ in range(r.randint(2, 20)))
    if kind == "marks":
        return "".join(r.choice("aeioucsABE \u0915\u05d0\u1100") + "".join(
            chr(r.randrange(0x300, 0x370)) for _ in range(r.randint(0, 4))) for _ in range(r.randint(1, 6)))
    if kind == "tokens" and special:
        return "".join(r.choice([r.choice(special), r.choice(WORDS), r.choice(SPACES), character(r), r.choice(GLUE)])
                       for _ in range(r.randint(2, 8)))
    return "".join(r.choice([r.choice(WORDS), r.choice(SPACES), r.choice(SPACES), r.choice(GLUE), character(r),
                             str(r.randrange(10 ** r.randint(1, 7)))]) for _ in range(r.randint(1, 8)))


def framed(r):
    """Characters from all planes, each between others that it may or may not join."""
    return "".join("a{0}1{0} {0}.{0}{0}".format(character(r)) for _ in range(2))


# ---- tokenizers ----

QWEN = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
CL100K = r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
O200K = "|".join([
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""\p{N}{1,3}""", r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""", r"""\s*[\r\n]+""", r"""\s+(?!\S)""", r"""\s+"""])
DEEPSEEK = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""


def byte_level(pre, size, normalizer=None, ignore_merges=False, decoder=None):
    tok = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre
    tok.decoder = decoder or decoders.ByteLevel()
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=size, show_progress=False,
                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tok


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def after_split(*steps):
    return pre_tokenizers.Sequence(list(steps) + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def sentence_piece(size, pre=None, normalizer=None, fallback=True, fuse=True, limit=400):
    """Train with words split, as merges over a whole text are too slow to count; then take the pre-tokenizer off."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse, byte_fallback=fallback))
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>"] + (["<0x%02X>" % i for i in range(256)] if fallback else [])
    tok.train_from_iterator(corpus(limit), trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False))
    d = json.loads(tok.to_str())
    d["added_tokens"] = d["added_tokens"][:3]
    tok = Tokenizer.from_str(json.dumps(d))
    if normalizer:
        tok.normalizer = normalizer
    if pre:
        tok.pre_tokenizer = pre
    else:
        d = json.loads(tok.to_str())
        d["pre_tokenizer"] = None
        tok = Tokenizer.from_str(json.dumps(d))
    return tok


def bos(tok, token, eos=None):
    ids = [(t, tok.token_to_id(t)) for t in (token, eos) if t]
    return processors.TemplateProcessing(single=f"{token} $A" + (f" {eos}" if eos else ""),
                                         pair=f"{token} $A {token} $B", special_tokens=ids)


def make_gpt2():
    tok = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), 900)
    tok.add_special_tokens(["<|endoftext|>"])
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    return tok


def make_prefixed():
    tok = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True), 700)
    tok.add_special_tokens(["<s>", "</s>", "<pad>", AddedToken("<mask>", lstrip=True, special=True)])
    tok.post_processor = bos(tok, "<s>", "</s>")
    return tok


def make_qwen():
    tok = byte_level(after_split(split(QWEN)), 1100, normalizers.NFC())
    tok.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tok.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False)])
    return tok


def make_llama3():
    tok = byte_level(after_split(split(LLAMA3)), 1000, ignore_merges=True)
    tok.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    d = json.loads(tok.to_str())
    whole = sorted({w for line in corpus() for w in line.split() if w.isascii() and 5 < len(w) < 12})[::9]
    for w in whole:  # words that no merges lead to: ignore_merges finds them
        d["model"]["vocab"].setdefault(w, len(d["model"]["vocab"]) + 3)
    d["added_tokens"] = [dict(t, id=len(d["model"]["vocab"]) + i) for i, t in enumerate(d["added_tokens"])]
    d["model"]["vocab"] = {w: i for i, w in enumerate(sorted(d["model"]["vocab"], key=d["model"]["vocab"].get))}
    tok = Tokenizer.from_str(json.dumps(d))
    tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), bos(tok, "<|begin_of_text|>")])
    return tok


def make_cl100k():
    return byte_level(after_split(split(CL100K, "removed", True)), 600)


def make_o200k():
    tok = byte_level(after_split(split(O200K)), 700)
    tok.add_special_tokens(["<|endoftext|>"])
    return tok


def make_deepseek():
    tok = byte_level(after_split(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK)), 800)
    tok.add_special_tokens(["<｜begin▁of▁sentence｜>", "<｜User｜>"])
    tok.post_processor = bos(tok, "<｜begin▁of▁sentence｜>")
    return tok


def make_falcon():
    pre = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
                                   pre_tokenizers.Digits(), split("[0-9][0-9][0-9]")])
    return byte_level(pre, 600)


def make_llama2():
    norm = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok = sentence_piece(1200, normalizer=norm)
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                     decoders.Strip(" ", 1, 0)])
    tok.post_processor = bos(tok, "<s>")
    d = json.loads(tok.to_str())
    d["model"]["merges"] = [" ".join(m) for m in d["model"]["merges"]]  # as older files have them
    return Tokenizer.from_str(json.dumps(d)), d


def make_meta():
    tok = sentence_piece(1000, pre_tokenizers.Metaspace(prepend_scheme="first", split=False))
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                     decoders.Strip(" ", 1, 0)])
    tok.post_processor = bos(tok, "<s>")
    tok.add_tokens([AddedToken("[INST]", normalized=False), AddedToken("[/INST]", normalized=False)])
    return tok


def make_metasplit():
    tok = sentence_piece(600, pre_tokenizers.Metaspace(prepend_scheme="always", split=True), fallback=False, fuse=False,
                         limit=150)
    tok.decoder = decoders.Metaspace(prepend_scheme="always")
    return tok


def make_fused():
    norm = normalizers.Sequence([normalizers.Strip(), normalizers.NFKC(), normalizers.Replace(Regex(r"\s{2,}"), " ")])
    tok = sentence_piece(500, pre_tokenizers.Metaspace(prepend_scheme="first", split=True), norm, fallback=False, limit=90)
    tok.decoder = decoders.Metaspace(prepend_scheme="first")
    tok.add_tokens([AddedToken("[INST]", normalized=False), AddedToken("<x>", normalized=True)])
    tok.post_processor = bos(tok, "<s>", "</s>")
    return tok


def make_added():
    tok = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), 500,
                     normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase()]))
    tok.add_special_tokens(["<s>", "</s>", AddedToken("<L>", lstrip=True, special=True), AddedToken("<R>", rstrip=True, special=True),
                            AddedToken("<LR>", lstrip=True, rstrip=True, special=True)])
    tok.add_tokens([AddedToken("word", single_word=True, normalized=False), AddedToken("Norm", normalized=True),
                    AddedToken("Norm al", normalized=True), AddedToken("raw", normalized=False), AddedToken("rawer", normalized=False),
                    AddedToken("É", normalized=True), AddedToken("Ω", normalized=False, single_word=True), AddedToken("   ", normalized=False),
                    AddedToken("  ", normalized=False, rstrip=True), AddedToken("é́", normalized=False), AddedToken("N1", single_word=True, lstrip=True, rstrip=True)])
    tok.post_processor = bos(tok, "<s>", "</s>")
    return tok


def make_behaviors():
    """Split in all its ways, words without a byte alphabet, no decoder."""
    pre = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("-", "merged_with_previous"),
                                   pre_tokenizers.Split("_", "merged_with_next"), split("[.,;]+", "contiguous"),
                                   split(r"\b(?=\w)"), split("!", "removed"),
                                   pre_tokenizers.Digits(individual_digits=True), split(r"é|\h{3}", "merged_with_previous", True)])
    tok = Tokenizer(models.BPE(unk_token="<unk>"))
    tok.normalizer = normalizers.NFD()
    tok.pre_tokenizer = pre
    tok.train_from_iterator(corpus(120), trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>"], show_progress=False))
    return tok


def make_whitespace():
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    tok.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip("e", 2, 3)])
    tok.train_from_iterator(corpus(120), trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>"], show_progress=False))
    return tok


def make_decoders():
    """Decoder steps in an order that no model has: what must wait for the end does."""
    tok = sentence_piece(500, limit=90)
    tok.decoder = decoders.Sequence([decoders.Strip("e", 1, 1), decoders.Replace(Regex("[aeiou]{2}"), "<0x2a>"), decoders.ByteFallback(),
                                     decoders.Fuse(), decoders.Replace("▁▁", "_"), decoders.Metaspace(prepend_scheme="never")])
    return tok


def pieces(*pre):
    """Every byte a token and U+2588 in front of each piece, so that the ids show where the text was split."""
    tok = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    tok.pre_tokenizer = after_split(*pre, pre_tokenizers.Metaspace("█", "always", False))
    tok.decoder = decoders.ByteLevel()
    return tok


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
make_pieces_gpt2 = lambda: pieces(split(GPT2))
make_pieces_qwen = lambda: pieces(split(QWEN))
make_pieces_cl100k = lambda: pieces(split(CL100K, "removed", True))
make_pieces_o200k = lambda: pieces(split(O200K))
make_pieces_deepseek = lambda: pieces(split(DEEPSEEK))
make_pieces_classes = lambda: pieces(pre_tokenizers.Punctuation("merged_with_next"), pre_tokenizers.Digits(False),
                                     split(r"\w+|\h", "contiguous"), split(r"(?i:k)|\v", "merged_with_previous"))


def make_kjv():
    """The tokenizer of the model in this repository."""
    return Tokenizer.from_file(KJV)


KJV = os.path.join(HERE, "../../../models/kjv-mixtral/tokenizer.json")
MAKERS = {k[5:]: v for k, v in list(globals().items()) if k.startswith("make_")}


# ---- writing ----

def decode(tok, ids, skip):
    try:
        return tok.decode(ids, skip_special_tokens=skip)
    except BaseException:  # the library panics where Strip meets a token shorter than what it strips
        return None


def cases(name, tok, r):
    special = [t.content for t in tok.get_added_tokens_decoder().values()]
    texts = TRICKY if name in ("gpt2", "qwen", "llama2", "llama3", "meta", "added") else r.sample(TRICKY, 150)
    if name.startswith("pieces"):
        texts = [t for t in TRICKY if len(t) < 60] + [framed(r) for _ in range(150)]
    texts = [""] + list(texts) + [awkward(r, special) for _ in range(40 if name.startswith("pieces") else 220)]
    for text in texts:
        yield text, tok.encode(text, add_special_tokens=False).ids
    size = max(tok.get_vocab().values()) + 1
    some = [i for i in range(size) if len((tok.id_to_token(i) or "").encode()) < 8]
    for _ in range(60):
        yield None, [r.choice(some if r.random() < .8 else range(size)) for _ in range(r.randint(1, 12))]


def write(name, make):
    r = random.Random("moe " + name)
    made = make()
    tok, doc = made if isinstance(made, tuple) else (made, json.loads(made.to_str()))
    if name != "kjv":
        with open(os.path.join(HERE, name + ".json"), "w", encoding="utf-8") as f:
            json.dump(doc, f, ensure_ascii=False, separators=(",", ":"))
        tok = Tokenizer.from_file(os.path.join(HERE, name + ".json"))
    around = tok.encode("a").ids
    inner = tok.encode("a", add_special_tokens=False).ids
    at = next(i for i in range(len(around)) if around[i:i + len(inner)] == inner)
    before, after = around[:at], around[at + len(inner):]
    lines = [{"before": before, "after": after}]
    for text, ids in cases(name, tok, r):
        whole = before + ids + after
        if text is not None:
            assert tok.encode(text).ids == whole
        plain, skipped = decode(tok, whole, False), decode(tok, whole, True)
        if plain is None or skipped is None or "\0" in plain:
            continue
        lines.append([text, ids, 0 if plain == text else plain, 0 if skipped == text else skipped])
    with open(os.path.join(HERE, name + ".jsonl"), "w", encoding="utf-8") as f:
        for line in lines:
            f.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
    return len(lines) - 1


if __name__ == "__main__":
    print(sum(write(name, make) for name, make in MAKERS.items()), "cases")
