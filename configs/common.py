"""The base recipe: every setting there is, with the reference's values.

A config file changes what differs, and `:tiny` shrinks any of them to a run of seconds.
Override anything on the command line: `--config.batch_size=64 --config.optim.coef_lr=0.01`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def base() -> ConfigDict:
    """The recipe of the paper for ViT-B/32 and short captions."""
    config = ConfigDict()
    config.seed = 42
    config.batch_size = 128  # Pairs of a clip and one of its captions, over all devices.
    config.microbatch = 0  # Pairs whose activations are held at once, over all devices; 0: all.
    # "softmax" over a batch's texts and videos, as the paper, or "sigmoid" of each pair, as SigLIP.
    config.contrastive = "softmax"
    # In which gradients are summed over examples and devices, or "bfloat16": half is sent.
    config.gradient_dtype = "float32"
    config.num_epochs = 5  # Passes over the pairs: each shows every caption of every clip.
    config.num_steps = 0  # Updates in all; 0: num_epochs of (pairs // batch_size).
    config.eval_batch_size = 128
    # A converted or trained checkpoint directory to start from. What makes its numbers (sizes,
    # activation, tokenizer, temperature, ...) is taken from it, too; only what a config file
    # changes from here, or the command line gives, is compared with it and refused if it differs.
    config.init_from = ""

    # Devices along each axis, -1 for all that the others leave: batches are split over data and
    # fsdp, parameters and optimiser state over fsdp, attention heads and MLPs over tensor.
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    # Steps whose loss or gradient is not finite are not applied; so many of them end the run.
    config.max_nonfinite = 10

    config.log_every = 50  # Steps, as the next two.
    # 0: once an epoch, which can be long (MSR-VTT 1,328 steps). Each also saves a checkpoint.
    config.validate_every = 0
    config.checkpoint_every = 0  # More checkpoints between validations; 0: none.
    config.keep_checkpoints = 2  # The last ones; the best by validation R@1 stays besides.

    config.data = ConfigDict()
    config.data.dir = ""  # What `prepare` wrote.
    config.data.train_split = "train"
    config.data.validation_split = "val"  # "": no validation.
    config.data.test_split = "test"
    config.data.frame_rate = 1.0  # Frames a second that `prepare` stored.
    config.data.num_frames = 12  # V
    config.data.num_words = 32  # L
    config.data.augment = False  # RandAugment of the training clips; on for the benchmarks.
    # A merges file, a Hugging Face directory, a hub name, or "demo".
    config.data.tokenizer = "openai/clip-vit-base-patch32"

    config.model = ConfigDict()
    config.model.clip = ConfigDict()
    # "ViT-B/32", "SigLIP-B/16", "PE-Core-B/16", "tiny" and others (docs/encoders.md).
    config.model.clip.variant = "ViT-B/32"
    # Each None is the variant's.
    config.model.clip.image_size = placeholder(int)
    config.model.clip.patch_size = placeholder(int)
    # How `prepare` made squares ("crop" or "squash", "bicubic" or "bilinear"), and what pixels
    # are normalised by on the device.
    config.model.clip.resize = placeholder(str)
    config.model.clip.interpolation = placeholder(str)
    config.model.clip.image_mean = placeholder(tuple)
    config.model.clip.image_std = placeholder(tuple)
    config.model.clip.vision_width = placeholder(int)
    config.model.clip.vision_layers = placeholder(int)
    config.model.clip.vision_head_width = placeholder(int)
    config.model.clip.text_width = placeholder(int)
    config.model.clip.text_layers = placeholder(int)
    config.model.clip.text_head_width = placeholder(int)
    config.model.clip.embed_dim = placeholder(int)
    config.model.clip.context_length = placeholder(int)
    config.model.clip.vocab_size = placeholder(int)
    # "quick_gelu", "gelu", "gelu_tanh" or "relu".
    config.model.clip.activation = placeholder(str)
    # What sets a family apart; glscl_jax/models/encoders/clip_config.py says what each is.
    config.model.clip.vision_mlp_width = placeholder(int)
    config.model.clip.text_mlp_width = placeholder(int)
    config.model.clip.text_activation = placeholder(str)
    config.model.clip.layer_norm_epsilon = placeholder(float)
    config.model.clip.norm_offset = placeholder(bool)
    config.model.clip.attention_cap = placeholder(float)
    config.model.clip.patch_bias = placeholder(bool)
    config.model.clip.class_token = placeholder(bool)
    config.model.clip.pre_norm = placeholder(bool)
    config.model.clip.rotary = placeholder(bool)
    config.model.clip.vision_pooling = placeholder(str)  # "class", "probe", "mean", "query"
    config.model.clip.probe_heads = placeholder(int)
    config.model.clip.probe_mlp_width = placeholder(int)
    config.model.clip.vision_projection = placeholder(str)  # "matrix", "biased" or "none"
    config.model.clip.time_layers = placeholder(int)
    config.model.clip.time_positions = placeholder(int)
    config.model.clip.auxiliary_layers = placeholder(int)
    config.model.clip.causal = placeholder(bool)
    config.model.clip.text_pooling = placeholder(str)  # "highest", "end", "last" or "class"
    config.model.clip.text_positions = placeholder(str)  # "learned" or "sinusoidal"
    config.model.clip.end_id = placeholder(int)
    config.model.clip.text_projection = placeholder(str)
    config.model.clip.logit_bias = placeholder(bool)
    # Whose data.tokenizer is, where its files do not say: "clip", "siglip", "siglip2", ...
    config.model.clip.tokenizer = placeholder(str)
    config.model.towers = True  # train --features sets it: another's encoder has none here.
    config.model.temporal = "seqTransf"  # or "seqLSTM", "None"
    config.model.temporal_layers = 4
    # What scores: "glscl", "gim", "mean", "wti", "x_pool" or "dicosa" (docs/heads.md). The rest of
    # these settings is GLSCL's, as config.losses is; another head takes those that it has too
    # (temperature, queries), passes the others over, and says so.
    config.model.head = ConfigDict()
    config.model.head.name = "glscl"
    config.model.head.temperature = 3.0  # Of the GIM's softmax.
    config.model.head.normalised = False  # The GIM's features of length 1, and cosines its logits.
    config.model.head.gim_weight = 1.0  # 0: the LIM alone; the GIM alone is another head, "gim".
    config.model.head.lim_weight = 0.5
    config.model.head.queries = 8  # K
    config.model.head.lim_layers = 3
    config.model.head.lim_heads = 8
    config.model.head.lim_feed_forward = 2048
    config.model.head.lim_dropout = 0.1
    config.model.head.share_queries = True
    config.model.head.share_decoder = True
    config.model.head.mask_padding = False  # The reference's LIM reads padding, too.
    config.model.dtype = "float32"  # or "bfloat16"; parameters stay float32.
    # What the backward pass computes again: "none", "dots" or "full"; "auto" is by the device.
    config.model.remat = "auto"
    config.model.scan = True  # False writes every layer out: compiles longer, may run faster.
    config.model.attention = "auto"  # or "plain", "fused": by one kernel, cuDNN's on a GPU.

    config.losses = ConfigDict()
    config.losses.alpha = 1e-4
    config.losses.beta = 5e-3
    config.losses.centre = 1.0  # Consistency's first term: the paper has no weight on it.
    config.losses.margin = 0.1
    config.losses.target = 0.75
    config.losses.per_pair = False  # The reference's batch-size-dependent consistency term.

    config.optim = ConfigDict()
    config.optim.learning_rate = 1e-4
    config.optim.coef_lr = 1e-3  # CLIP's factor on it.
    config.optim.clip_group = "^clip/"
    config.optim.layer_decay = 1.0  # Factor from each block of a CLIP tower to the one below it.
    # Patterns; a layer of a stack is named by its number: "^clip/vision/transformer/blocks/[0-5]/".
    config.optim.frozen = ("^clip/vision/patch_embedding$",)
    config.optim.ema = 0.0  # The parameters' moving average, e.g. 0.999; 0: none.
    config.optim.warmup = 0.1  # Share of the run.
    config.optim.b1 = 0.9
    config.optim.b2 = 0.98
    config.optim.eps = 1e-6
    config.optim.weight_decay = 0.2
    config.optim.no_decay = "bias$"
    config.optim.max_global_norm = 1.0
    config.optim.max_tensor_norm = 1.0
    config.optim.clip_numerics = "float32"  # or "float16_reference"
    return config


def shrunk(config: ConfigDict) -> ConfigDict:
    """The same recipe with a model and batches of seconds, on the demo's data."""
    config.batch_size = 8
    config.eval_batch_size = 8
    config.num_steps = 12
    config.log_every = 4
    config.validate_every = 6
    config.checkpoint_every = 2
    config.data.frame_rate = 2.0
    config.data.tokenizer = "demo"
    config.data.num_frames = min(config.data.num_frames, 3)
    config.data.num_words = min(config.data.num_words, 16)
    config.model.clip.variant = "tiny"
    config.model.head.lim_feed_forward = 64
    config.model.temporal_layers = 1
    return config


def without_losses(config: ConfigDict) -> ConfigDict:
    """The same recipe without the losses of concepts: the contrastive one is left."""
    config.losses.alpha = config.losses.beta = config.losses.centre = 0.0
    return config


def lim_alone(config: ConfigDict) -> ConfigDict:
    """The LIM scores alone and has no losses of its own: from the demo's features far ahead of GIM
    and LIM together, and of the GIM (docs/heads.md). Not the reference's."""
    config.model.head.gim_weight = 0.0
    config.model.head.lim_weight = 1.0
    return without_losses(config)


def lim_masked(config: ConfigDict) -> ConfigDict:
    """The LIM reads no padding and has no losses of its own: from the demo's features ahead of the
    released head and of the GIM (docs/heads.md). Not the reference's."""
    config.model.head.mask_padding = True
    return without_losses(config)


# What any recipe can be behind its file's name and a colon.
VARIANTS = {"lim_alone": lim_alone, "lim_masked": lim_masked, "tiny": shrunk}


def variant_of(config: ConfigDict, name: str | None, *others: str) -> ConfigDict:
    """What `configs/x.py:name` means: nothing, or one of `VARIANTS`; the file sees to `others`."""
    if not name:
        return config
    if name not in VARIANTS:
        *first, last = (f":{known}" for known in (*others, *VARIANTS))
        raise ValueError(
            f"no variant {name!r} of this config: there is only {', '.join(first)} and {last}"
        )
    return VARIANTS[name](config)
