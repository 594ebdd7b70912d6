"""GLSCL ViT-B/32 in PyTorch out of libraries' parts: what this project's step is timed beside."""

import numpy as np
import torch
import transformers
from torch import nn

from glscl_jax.models.clip import IMAGE_MEAN, IMAGE_STD


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


class TorchGLSCL(nn.Module):
    """transformers' CLIPModel, torch.nn encoder over frames and decoder as the LIM."""

    def __init__(self, queries: int = 8, width: int = 512):
        super().__init__()
        self.clip = transformers.CLIPModel(transformers.CLIPConfig())
        # The reference trains all of CLIP but its patch convolution.
        self.clip.vision_model.embeddings.patch_embedding.requires_grad_(False)
        block = nn.TransformerEncoderLayer(
            width, width // 64, 4 * width, 0.0, quick_gelu, batch_first=True, norm_first=True
        )
        self.temporal = nn.TransformerEncoder(block, 4, enable_nested_tensor=False)
        self.frame_position = nn.Parameter(torch.randn(77, width) * 0.01)
        layer = nn.TransformerDecoderLayer(width, 8, 2048, 0.1, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, 3)
        self.queries = nn.Parameter(torch.rand(queries, width))

    def forward(self, ids, text_mask, frames, frame_mask):
        text = self.clip.text_model(input_ids=ids, attention_mask=text_mask).last_hidden_state
        tokens = self.clip.text_projection(text)
        sentence = tokens[torch.arange(len(ids)), ids.argmax(1)]
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
    right = torch.arange(len(logits))
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
    """Forward, losses, backward, clipping and update."""

    def __init__(self, inputs: dict[str, np.ndarray]):
        torch.manual_seed(0)
        self.model = TorchGLSCL().train()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.2)
        self.inputs = inputs

    def __call__(self) -> None:
        frames = torch.from_numpy(self.inputs["frames"]).permute(0, 1, 4, 2, 3)
        mean, std = (torch.tensor(x)[:, None, None] for x in (IMAGE_MEAN, IMAGE_STD))
        batch = {
            "ids": torch.from_numpy(self.inputs["text_ids"]).long(),
            "text_mask": torch.from_numpy(self.inputs["text_mask"]),
            "frames": (frames.float() / 255 - mean) / std,
            "frame_mask": torch.from_numpy(self.inputs["frame_mask"]),
        }
        self.optimizer.zero_grad()
        losses(self.model, batch).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
