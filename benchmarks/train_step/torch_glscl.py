"""GLSCL in PyTorch out of libraries' parts: what this project's step is timed beside."""

import contextlib

import numpy as np
import torch
import transformers
from torch import nn

from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.images import CLIP_MEAN, CLIP_STD
from glscl_jax.models.encoders.variants import VARIANTS

# Every CLIP of OpenAI's, and every transformer that starts from one, has heads of this width.
HEAD_WIDTH = 64


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


class TorchGLSCL(nn.Module):
    """transformers' CLIPModel, torch.nn encoder over frames and decoder as the LIM.

    Attention is torch's fused scaled_dot_product_attention in all of them.
    """

    def __init__(self, clip: CLIPConfig = VARIANTS["ViT-B/32"], queries: int = 8):
        super().__init__()
        width = clip.embed_dim
        self.clip = transformers.CLIPModel(clip_config(clip))
        # The reference trains all of CLIP but its patch convolution.
        self.clip.vision_model.embeddings.patch_embedding.requires_grad_(False)
        heads = width // HEAD_WIDTH
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, quick_gelu, batch_first=True, norm_first=True
        )
        self.temporal = nn.TransformerEncoder(block, 4, enable_nested_tensor=False)
        self.frame_position = nn.Parameter(torch.randn(clip.context_length, width) * 0.01)
        layer = nn.TransformerDecoderLayer(width, 8, 2048, 0.1, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, 3)
        self.queries = nn.Parameter(torch.rand(queries, width))

    def forward(self, ids, text_mask, frames, frame_mask):
        text = self.clip.text_model(input_ids=ids, attention_mask=text_mask).last_hidden_state
        tokens = self.clip.text_projection(text)
        sentence = tokens[torch.arange(len(ids), device=ids.device), ids.argmax(1)]
        images = frames.flatten(0, 1)
        video = self.clip.visual_projection(self.clip.vision_model(images).pooler_output)
        video = video.unflatten(0, frames.shape[:2])
        padded = frame_mask == 0
        positioned = video + self.frame_position[: video.shape[1]]
        video = video + self.temporal(positioned, src_key_padding_mask=padded)
        return sentence, self.read(tokens), video, self.read(video)

    def read(self, memory):
        start = self.queries.expand(len(memory), -1, -1)
        return nn.functional.normalize(self.decoder(start, memory), dim=-1)


def clip_config(clip: CLIPConfig) -> transformers.CLIPConfig:
    """The same sizes as transformers names them."""

    def tower(width, layers):
        return {
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // HEAD_WIDTH,
            "projection_dim": clip.embed_dim,
        }

    text = {
        **tower(clip.text_width, clip.text_layers),
        "vocab_size": clip.vocab_size,
        "max_position_embeddings": clip.context_length,
        "bos_token_id": clip.vocab_size - 2,
        "eos_token_id": clip.vocab_size - 1,
    }
    vision = {
        **tower(clip.vision_width, clip.vision_layers),
        "image_size": clip.image_size,
        "patch_size": clip.patch_size,
    }
    return transformers.CLIPConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=clip.embed_dim,
        attn_implementation="sdpa",
    )


def losses(model: TorchGLSCL, batch: dict) -> torch.Tensor:
    """The three losses' sum, with the GIM pooled pair by pair as usual in PyTorch."""
    sentence, text_queries, video, video_queries = model(**batch)
    weights = torch.softmax(torch.einsum("ad,bvd->abv", sentence, video) / 3.0, dim=-1)
    weights = weights * batch["frame_mask"]
    pooled = nn.functional.normalize(torch.einsum("abv,bvd->abd", weights, video), dim=-1)
    gim = torch.einsum("ad,abd->ab", nn.functional.normalize(sentence, dim=-1), pooled)
    count = video_queries.shape[1]
    lim = torch.einsum("akd,bkd->ab", text_queries, video_queries) / count
    logits = (gim + 0.5 * lim) * model.clip.logit_scale.exp()
    right = torch.arange(len(logits), device=logits.device)
    cross_entropy = nn.functional.cross_entropy
    contrastive = (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2
    gram = torch.einsum("bkd,bjd->kj", video_queries, video_queries) / len(video_queries)
    own = gram.diagonal()
    hinge = torch.relu(0.1 + gram - own[:, None]) + torch.relu(0.1 + gram - own[None])
    diversity = 1e-4 * (hinge.sum() - hinge.diagonal().sum()) / (count * (count - 1))
    centre = ((video_queries.mean(0) - text_queries.mean(0)) ** 2).mean()
    pairs = torch.einsum("bkd,bkd->k", video_queries, text_queries) / count
    return contrastive + diversity + centre + 5e-3 * ((pairs - 0.75) ** 2).sum()


class TorchStep:
    """Forward, losses, backward, clipping and update, finished when the call returns.

    Args:
      inputs: of `make_inputs`.
      clip: the towers' sizes.
      device: "cpu" or "cuda".
      autocast: compute in bfloat16, with float32 parameters.
      compiled: through torch.compile.
      checkpointing: recompute CLIP's layers in the backward pass.
    """

    def __init__(
        self,
        inputs: dict[str, np.ndarray],
        clip: CLIPConfig = VARIANTS["ViT-B/32"],
        device: str = "cpu",
        autocast: bool = False,
        compiled: bool = False,
        checkpointing: bool = False,
    ):
        torch.manual_seed(0)
        self.model = TorchGLSCL(clip).train().to(device)
        if checkpointing:
            self.model.clip.gradient_checkpointing_enable({"use_reentrant": False})
        trained = [p for p in self.model.parameters() if p.requires_grad]
        fused = True if device == "cuda" else None
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.2, fused=fused)
        self.inputs = {name: torch.from_numpy(x).to(device) for name, x in inputs.items()}
        self.losses = torch.compile(losses) if compiled else losses
        self.device = device
        self.precision = contextlib.nullcontext
        if autocast:
            self.precision = lambda: torch.autocast(device, torch.bfloat16)

    def __call__(self) -> None:
        frames = self.inputs["frames"].permute(0, 1, 4, 2, 3)
        mean, std = (
            torch.tensor(x, device=self.device)[:, None, None] for x in (CLIP_MEAN, CLIP_STD)
        )
        batch = {
            "ids": self.inputs["text_ids"].long(),
            "text_mask": self.inputs["text_mask"],
            "frames": (frames.float() / 255 - mean) / std,
            "frame_mask": self.inputs["frame_mask"],
        }
        self.optimizer.zero_grad()
        with self.precision():
            loss = self.losses(self.model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        if self.device == "cuda":
            torch.cuda.synchronize()
