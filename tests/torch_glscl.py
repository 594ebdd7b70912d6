"""A small GLSCL out of torch.nn modules: what the tests hold the library's modules against.

Its modules are called as in the released checkpoints, so its state dict has their names. The
frames go through an LSTM, and texts and videos share neither queries nor decoder.
"""

import torch
from torch import nn

from glscl_jax.models.clip import HEAD_WIDTH
from glscl_jax.models.glscl import GLSCLConfig


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, width // HEAD_WIDTH, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
        )

    def forward(self, x, **masks):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, **masks)[0]
        hidden = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](hidden * torch.sigmoid(1.702 * hidden))


class Stack(nn.Module):
    def __init__(self, width: int, layers: int):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width) for _ in range(layers))

    def forward(self, x, **masks):
        for block in self.resblocks:
            x = block(x, **masks)
        return x


class Vision(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, patch = config.vision_width, config.patch_size
        patches = (config.image_size // patch) ** 2
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(patches + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Stack(width, config.vision_layers)
        self.proj = nn.Parameter(torch.empty(width, config.embed_dim))

    def forward(self, images):
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(images), 1, -1)
        x = torch.cat([first, patches], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class CLIP(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.text_width
        self.visual = Vision(config)
        self.transformer = Stack(width, config.text_layers)
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.empty(()))

    def text(self, ids, mask):
        length = ids.shape[1]
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        x = self.transformer(x, attn_mask=later, key_padding_mask=mask == 0)
        return self.ln_final(x) @ self.text_projection


class GLSCL(nn.Module):
    def __init__(self, config: GLSCLConfig, seed: int):
        super().__init__()
        width = config.clip.embed_dim

        def queries():
            return nn.Parameter(torch.empty(config.queries, width))

        def decoder():
            layer = nn.TransformerDecoderLayer(
                width, config.lim_heads, config.lim_feed_forward, batch_first=True
            )
            return nn.TransformerDecoder(layer, config.lim_layers)

        self.clip = CLIP(config.clip)
        self.lstm_visual = nn.LSTM(width, width, batch_first=True)
        self.spatial_queries, self.noun_queries = queries(), queries()
        self.transformer_decoder_noun, self.transformer_decoder_spatial = decoder(), decoder()
        # No tensor may be 0 or 1 all over: the wrong one would do as well.
        noise = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=parameter.shape[-1:].numel() ** -0.5, generator=noise)
        self.eval()

    def encode_text(self, ids, mask):
        tokens = self.clip.text(ids, mask)
        sentence = tokens[torch.arange(len(ids)), ids.argmax(dim=1)]
        return sentence, self.read(self.noun_queries, self.transformer_decoder_noun, tokens)

    def encode_video(self, frames, mask):
        """frames [B,V,3,H,W]; every clip goes through the LSTM alone, without its padding."""
        features = self.clip.visual(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        lasting = features.clone()
        for clip, length in enumerate(mask.sum(dim=1)):
            lasting[clip, :length] = self.lstm_visual(features[clip : clip + 1, :length])[0]
        features = features + lasting
        return features, self.read(self.spatial_queries, self.transformer_decoder_spatial, features)

    @staticmethod
    def read(queries, decoder, memory):
        concepts = decoder(queries.expand(len(memory), -1, -1), memory)
        return nn.functional.normalize(concepts, dim=-1)
