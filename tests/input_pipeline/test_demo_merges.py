"""The demo's merges: each word of its captions is one token, and no merge is there for nothing.

Run as a program this file prints what `demo_merges.txt` is to hold (see `train_merges`).
"""

import collections
import itertools
import sys

from glscl_jax.input_pipeline import clip_tokenizer, rendered
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from tests.bpe_oracle import merged, oracle_words


def demo_words():
    text = " ".join(scene.caption for scene in rendered.scenes())
    return {word for chunk in set(text.split(" ")) for word in oracle_words(chunk)}


def train_merges(words):
    """Byte-pair merges that make each of the words one token, in a fixed order.

    The most frequent pair is merged first, of equals the alphabetically first, until no pair is
    left. `demo_merges.txt` is what this makes of the demo's captions; after a change of their
    wording remake it with

        python -m tests.input_pipeline.test_demo_merges > glscl_jax/input_pipeline/demo_merges.txt
    """
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in sorted(words)]
    merges = []
    while pairs := collections.Counter(p for word in spelled for p in itertools.pairwise(word)):
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        spelled = [merged(word, merges[-1]) for word in spelled]
    return merges


def written(merges):
    return "\n".join(["#version: 0.2", *(" ".join(merge) for merge in merges)]) + "\n"


def test_every_word_of_the_demo_is_one_token(demo):
    words = sorted(demo_words())
    assert len(words) > 20
    batch = demo(words, 8)
    assert (batch.mask.sum(1) == 3).all()
    assert len(set(batch.ids[:, 1].tolist())) == len(words)


def test_demo_captions_fit(demo):
    captions = [scene.caption for scene in rendered.scenes()]
    longest = max(len(oracle_words(caption)) for caption in captions)
    assert demo(captions, longest + 2).mask.sum(1).max() == longest + 2


def test_the_demo_has_no_merge_it_does_not_need(tmp_path):
    words = sorted(demo_words())
    lines = DEMO_MERGES.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 150
    path = tmp_path / "fewer.txt"
    for number in range(1, len(lines)):
        # Dropping a merge drops what is built on it, too.
        made, kept = set(clip_tokenizer.byte_symbols()), lines[:1]
        made |= {symbol + "</w>" for symbol in made}
        for line in lines[1:number] + lines[number + 1 :]:
            if set(line.split()) <= made:
                made.add(line.replace(" ", ""))
                kept.append(line)
        path.write_text("\n".join(kept) + "\n", encoding="utf-8")
        assert CLIPTokenizer.from_merges(path)(words, 20).mask.sum(1).max() > 3, lines[number]


def test_demo_merges_can_be_remade():
    assert DEMO_MERGES.read_text(encoding="utf-8") == written(train_merges(demo_words()))


if __name__ == "__main__":
    sys.stdout.write(written(train_merges(demo_words())))
