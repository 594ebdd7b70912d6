"""Small tokenizers of each family, trained here and saved as the family publishes its own."""

import json
import random

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

transformers = pytest.importorskip("transformers")

# Captions that are easily cleaned or split in another way.
ODD = (
    "",
    "  \t\n ",
    "A man, plays the GUITAR!",
    "...!? -- _",
    "😀 a face 👩\N{ZERO WIDTH JOINER}🍳 cooks",
    "İstanbul ΟΔΟΣ ὈΔΥΣΣΕΎΣ straße ẞ",
    "don't_it's a-b",
    "日本 word ½ ﬁ e\N{COMBINING ACUTE ACCENT}",
    "</s> a dog</s>  cat <unk>",
    "</s>",
    "<eos> a <s> b <pad> <mask>",
    "a\n b\t c\N{NO-BREAK SPACE}d\N{ZERO WIDTH SPACE}e\x00f\x1b[31m",
    "▁a▁b ▁",
    "rock &amp; roll",
    "a man " * 100,
    "supercalifragilisticexpialidocious" * 4,
)


_TEXT = """
    a man woman dog cat red blue circle square moves left right up down plays the guitar runs on
    beach is cooking in kitchen two people are talking about cars while it rains slowly then
    someone sings café naïve straße 3 42 don't it's
"""


def corpus() -> list[str]:
    """Sentences of few words, some with capitals and punctuation."""
    draw, words = random.Random(0), _TEXT.split()
    lines = [" ".join(draw.choices(words, k=draw.randint(3, 12))) for _ in range(400)]
    return lines + [f"{line.capitalize()}, {line}!" for line in lines[:60]]


def pieces(path, vocab_size=300, **options):
    """A model of SentencePiece with the special ids of SigLIP's and VideoPrism's."""
    sentencepiece = pytest.importorskip("sentencepiece")
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus()),
            model_writer=file,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            minloglevel=2,
            **ids | options,
        )
    return path


def siglip(path, **config):
    """As google/siglip-base-patch16-224 has it beside its weights."""
    path.mkdir(exist_ok=True)
    pieces(path / "spiece.model")
    said = {
        "tokenizer_class": "SiglipTokenizer",
        "do_lower_case": True,
        "eos_token": "</s>",
        "pad_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 64,
        "additional_special_tokens": [],
        "added_tokens_decoder": {
            number: {"content": token, "special": True, "lstrip": True, "rstrip": True}
            | {"normalized": False, "single_word": False}
            for number, token in {"1": "</s>", "2": "<unk>"}.items()
        },
    }
    (path / "tokenizer_config.json").write_text(json.dumps(said | config))
    return path


def siglip_2(path, **config):
    """As google/siglip2-base-patch16-224 has it: Gemma's files, and when to end."""
    path.mkdir(exist_ok=True)
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    rules = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    rules.normalizer = normalizers.Replace(" ", "▁")
    rules.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=[*special, *bytes_])
    rules.train_from_iterator(corpus(), trainer)
    rules.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    # Bytes are of the vocabulary and no tokens that are spelled out.
    content = json.loads(rules.to_str())
    content["added_tokens"] = content["added_tokens"][: len(special)]
    (path / "tokenizer.json").write_text(json.dumps(content))
    said = {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": False,
        "add_eos_token": True,
        "do_lower_case": True,
        "padding_side": "right",
        **{f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")},
    }
    (path / "tokenizer_config.json").write_text(json.dumps(said | config))
    return path


def xlm(path, **config):
    """As facebook/xlm-v-base has it, which MetaCLIP 2 takes."""
    path.mkdir(exist_ok=True)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    rules = tokenizers.Tokenizer(models.Unigram())
    rules.normalizer = normalizers.NFKC()
    rules.pre_tokenizer = pre_tokenizers.Metaspace()
    rules.train_from_iterator(
        corpus(),
        trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>"),
    )
    found = json.loads(rules.to_str())["model"]["vocab"]
    made = transformers.XLMRobertaTokenizer(vocab=[tuple(pair) for pair in found])
    made.save_pretrained(path)
    said = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps(said | config))
    return path


def videoprism(path):
    """As Google gives it: the model of SentencePiece alone."""
    return pieces(path)


def bert(path):
    """As bert-base-uncased has it, which CLIPA takes."""
    path.mkdir(exist_ok=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    rules = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    rules.normalizer = normalizers.BertNormalizer()
    rules.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rules.train_from_iterator(
        corpus(), trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
    )
    rules.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    rules.save(str(path / "tokenizer.json"))
    said = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (path / "tokenizer_config.json").write_text(json.dumps(said))
    return path
