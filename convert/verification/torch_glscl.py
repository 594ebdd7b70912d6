"""CLIP and GLSCL out of torch.nn modules: what converted weights are held against.

Its modules are called as in the released checkpoints, so a state dict loads by name, past every
table and every layout of the conversion. Imported only where PyTorch is needed.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.transformer import Blocks
from glscl_jax.models.glscl import GLSCLConfig

# The released code's frame blocks have a LayerNorm of their own, and a mask of their own.
FRAME_NORM_EPS = 1e-12
PADDED_FRAME = -1e6


ACTIVATIONS = {
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu": nn.functional.gelu,
    "gelu_tanh": lambda x: nn.functional.gelu(x, approximate="tanh"),
    "relu": nn.functional.relu,
}


class Block(nn.Module):
    """CLIP's residual attention block."""

    def __init__(self, blocks: Blocks):
        super().__init__()
        width = blocks.width
        self.attn = nn.MultiheadAttention(width, blocks.heads, batch_first=True)
        self.ln_1, self.ln_2 = (nn.LayerNorm(width, blocks.epsilon) for _ in range(2))
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(width, blocks.mlp_width),
                "c_proj": nn.Linear(blocks.mlp_width, width),
            }
        )
        self.activation = ACTIVATIONS[blocks.activation]

    def forward(self, x, **masks):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, **masks)[0]
        return x + self.mlp["c_proj"](self.activation(self.mlp["c_fc"](self.ln_2(x))))


class Stack(nn.Module):
    def __init__(self, blocks: Blocks):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(blocks) for _ in range(blocks.layers))

    def forward(self, x, **masks):
        for block in self.resblocks:
            x = block(x, **masks)
        return x


class Vision(nn.Module):
    def __init__(self, config: CLIPConfig):
        super().__init__()
        width, patch = config.vision_width, config.patch_size
        patches = (config.image_size // patch) ** 2
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(patches + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Stack(config.vision_blocks)
        self.proj = nn.Parameter(torch.empty(width, config.embed_dim))

    def forward(self, images):
        """images [N,3,H,W] -> [N,D]."""
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(images), 1, -1)
        x = torch.cat([first, patches], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class CLIP(nn.Module):
    def __init__(self, config: CLIPConfig):
        super().__init__()
        width = config.text_width
        self.visual = Vision(config)
        self.transformer = Stack(config.text_blocks)
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.empty(()))

    def text(self, ids, mask):
        """ids and mask [A,L] -> a feature of every token [A,L,D]."""
        length = ids.shape[1]
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        x = self.transformer(x, attn_mask=later, key_padding_mask=mask == 0)
        return self.ln_final(x) @ self.text_projection


class GLSCL(nn.Module):
    """The parts of a GLSCL that `parts` names; "clip" is always there."""

    def __init__(self, config: GLSCLConfig, parts: tuple[str, ...] = ("clip", "temporal", "lim")):
        super().__init__()
        width = config.clip.embed_dim
        self.config, self.temporal = config, config.temporal if "temporal" in parts else "None"
        self.clip = CLIP(config.clip)
        if self.temporal == "seqTransf":
            self.frame_position_embeddings = nn.Embedding(config.clip.context_length, width)
            self.transformerClip = Stack(
                Blocks(
                    width,
                    config.temporal_layers,
                    config.clip.text_head_width,
                    4 * width,
                    epsilon=FRAME_NORM_EPS,
                )
            )
        elif self.temporal == "seqLSTM":
            self.lstm_visual = nn.LSTM(width, width, batch_first=True)
        if "lim" in parts:
            self.spatial_queries = nn.Parameter(torch.empty(config.head.queries, width))
            self.transformer_decoder_noun = self.decoder()
            if not config.head.share_queries:
                self.noun_queries = nn.Parameter(torch.empty(config.head.queries, width))
            if not config.head.share_decoder:
                self.transformer_decoder_spatial = self.decoder()
        self.eval()

    def decoder(self) -> nn.Module:
        width, head = self.config.clip.embed_dim, self.config.head
        layer = nn.TransformerDecoderLayer(
            width, head.lim_heads, head.lim_feed_forward, batch_first=True
        )
        return nn.TransformerDecoder(layer, head.lim_layers)

    def encode_text(self, ids, mask):
        """Sentences [A,D] and, with a LIM, queries [A,K,D]."""
        tokens = self.clip.text(ids, mask)
        sentence = tokens[torch.arange(len(ids)), ids.argmax(dim=1)]
        queries = getattr(self, "noun_queries", getattr(self, "spatial_queries", None))
        return sentence, self.read(queries, getattr(self, "transformer_decoder_noun", None), tokens)

    def encode_video(self, frames, mask):
        """frames [B,V,3,H,W] -> frame features [B,V,D] and, with a LIM, queries [B,K,D]."""
        features = self.clip.visual(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        if self.temporal == "seqTransf":
            features = features + self.over_frames(features, mask)
        elif self.temporal == "seqLSTM":
            features = features + self.lasting(features, mask)
        decoder = getattr(self, "transformer_decoder_noun", None)
        decoder = getattr(self, "transformer_decoder_spatial", decoder)
        return features, self.read(getattr(self, "spatial_queries", None), decoder, features)

    def over_frames(self, features, mask):
        x = features + self.frame_position_embeddings.weight[: features.shape[1]]
        heads, count = features.shape[2] // self.config.clip.text_head_width, features.shape[1]
        hidden = torch.where(mask > 0, 0.0, PADDED_FRAME)[:, None].expand(-1, count, -1)
        return self.transformerClip(x, attn_mask=hidden.repeat_interleave(heads, dim=0))

    def lasting(self, features, mask):
        """Every clip goes through the LSTM alone, without its padding, where it is 0."""
        lasting = torch.zeros_like(features)
        for clip, length in enumerate(mask.sum(dim=1)):
            lasting[clip, :length] = self.lstm_visual(features[clip : clip + 1, :length])[0]
        return lasting

    @staticmethod
    def read(queries, decoder, memory):
        if queries is None:
            return None
        concepts = decoder(queries.expand(len(memory), -1, -1), memory)
        return nn.functional.normalize(concepts, dim=-1)

    def score(self, text, video, mask):
        """The score [A,B] of what the two encoders returned, with every [A,B,D] written out."""
        (sentence, text_queries), (frames, video_queries) = text, video
        logits = torch.einsum("ad,bvd->abv", sentence, frames)
        weights = torch.softmax(logits / self.config.head.temperature, dim=-1) * mask
        pooled = torch.einsum("abv,bvd->abd", weights, frames)
        score = nn.functional.cosine_similarity(sentence[:, None], pooled, dim=-1)
        if text_queries is None:
            return score
        products = torch.einsum("akd,bkd->abk", text_queries, video_queries)
        return score + self.config.head.lim_weight * products.mean(dim=-1)


def load(module: nn.Module, tensors: Mapping[str, np.ndarray]) -> nn.Module:
    """Puts tensors into a module by their names; those it has no place for are left out.

    Raises:
      KeyError: the module has a name that the tensors lack.
    """
    with torch.no_grad():
        for name, parameter in module.state_dict().items():
            values = np.array(tensors[name], dtype=np.float32)
            parameter.copy_(torch.from_numpy(values))
    return module


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Normal values everywhere: for a tensor of 0 or 1 all over a wrong one would do as well."""
    noise = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=parameter.shape[-1:].numel() ** -0.5, generator=noise)
    return module
