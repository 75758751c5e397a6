"""Small networks of the published layouts with random weights, as files that the loaders read."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

VGGISH = {0: 1, 3: 2, 6: 2, 8: 2, 11: 4, 13: 4}
CLIP_WORDS = ["a", "ball", "bell", "metal", "wood", "rings", "the"]


def random(shapes: dict[str, tuple[int, ...]], seed: int = 0, scale: float = 0.3):
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(shape, generator=generator) * scale for k, shape in shapes.items()}


def vggish_shapes(channels: list[int], widths: list[int]) -> dict[str, tuple[int, ...]]:
    """Keys of vggish-10086976.pth."""
    shapes, before = {}, 1
    for index, width in zip(VGGISH, channels, strict=True):
        shapes[f"features.{index}.weight"] = (width, before, 3, 3)
        shapes[f"features.{index}.bias"] = (width,)
        before = width
    before *= 6 * 4
    for index, width in zip((0, 2, 4), widths, strict=True):
        shapes[f"embeddings.{index}.weight"] = (width, before)
        shapes[f"embeddings.{index}.bias"] = (width,)
        before = width
    return shapes


def vggish(folder: Path) -> Path:
    path = folder / "vggish.pth"
    torch.save(random(vggish_shapes([4, 4, 8, 8, 8, 8], [32, 32, 128])), path)
    return path


def head(folder: Path, classes: int = 10) -> Path:
    path = folder / "head.safetensors"
    save_file(random({"weight": (classes, 128), "bias": (classes,)}, 1, scale=1e-3), path)
    return path


def cnn14_shapes(
    window: int, widths: list[int], hidden: int, classes: int
) -> dict[str, tuple[int, ...]]:
    """Keys of Cnn14_mAP=0.431.pth."""
    bins = window // 2 + 1
    shapes: dict[str, tuple[int, ...]] = {
        "spectrogram_extractor.stft.conv_real.weight": (bins, 1, window),
        "spectrogram_extractor.stft.conv_imag.weight": (bins, 1, window),
        "logmel_extractor.melW": (bins, 64),
    }

    def norm(name: str, width: int) -> None:
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{leaf}"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("bn0", 64)
    for index, (before, width) in enumerate(zip([1, *widths], widths, strict=False), 1):
        shapes[f"conv_block{index}.conv1.weight"] = (width, before, 3, 3)
        shapes[f"conv_block{index}.conv2.weight"] = (width, width, 3, 3)
        norm(f"conv_block{index}.bn1", width)
        norm(f"conv_block{index}.bn2", width)
    shapes |= {"fc1.weight": (hidden, widths[-1]), "fc1.bias": (hidden,)}
    shapes |= {"fc_audioset.weight": (classes, hidden), "fc_audioset.bias": (classes,)}
    return shapes


def cnn14(folder: Path) -> Path:
    path = folder / "cnn14.pth"
    weights = random(cnn14_shapes(512, [4, 4, 8, 8, 8, 8], 16, 10))
    for key in weights:
        if key.endswith("running_var") or key == "logmel_extractor.melW":
            weights[key] = weights[key].abs() + 0.1
    torch.save({"iteration": 1, "model": weights}, path)
    return path


def imagebind_shapes(
    widths: dict[str, int], depths: dict[str, int], out: int, words: int, other: bool = True
) -> dict[str, tuple[int, ...]]:
    """Keys of imagebind_huge.pth; ``other``: also some of a sense that is not used here."""
    vision, text, audio = (widths[sense] for sense in ("vision", "text", "audio"))
    key = "modality_preprocessors"
    shapes: dict[str, tuple[int, ...]] = {
        f"{key}.vision.cls_token": (1, 1, vision),
        f"{key}.vision.rgbt_stem.proj.1.weight": (vision, 3, 2, 14, 14),
        f"{key}.vision.pos_embedding_helper.pos_embed": (1, 257, vision),
        f"{key}.text.pos_embed": (1, 77, text),
        f"{key}.text.mask": (77, 77),
        f"{key}.text.token_embedding.weight": (words, text),
        f"{key}.audio.cls_token": (1, 1, audio),
        f"{key}.audio.rgbt_stem.proj.weight": (audio, 1, 16, 16),
        f"{key}.audio.rgbt_stem.norm_layer.weight": (audio,),
        f"{key}.audio.rgbt_stem.norm_layer.bias": (audio,),
        f"{key}.audio.pos_embedding_helper.pos_embed": (1, 229, audio),
    }

    def affine(name: str, width: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (width,), (width,)

    for sense, width in widths.items():
        trunk = f"modality_trunks.{sense}"
        if sense == "vision":
            affine(f"{trunk}.pre_transformer_layer.0", width)
        for index in range(depths[sense]):
            block = f"{trunk}.blocks.{index}"
            shapes[f"{block}.attn.in_proj_weight"] = (3 * width, width)
            shapes[f"{block}.attn.in_proj_bias"] = (3 * width,)
            if sense == "audio":
                shapes[f"{block}.attn.bias_k"] = shapes[f"{block}.attn.bias_v"] = (1, 1, width)
            shapes[f"{block}.attn.out_proj.weight"] = (width, width)
            shapes[f"{block}.attn.out_proj.bias"] = (width,)
            affine(f"{block}.norm_1", width)
            affine(f"{block}.norm_2", width)
            shapes[f"{block}.mlp.fc1.weight"] = (4 * width, width)
            shapes[f"{block}.mlp.fc1.bias"] = (4 * width,)
            shapes[f"{block}.mlp.fc2.weight"] = (width, 4 * width)
            shapes[f"{block}.mlp.fc2.bias"] = (width,)
        name = f"modality_heads.{sense}"
        affine(f"{name}.proj.0" if sense == "text" else f"{name}.0", width)
        shapes[f"{name}.proj.1.weight" if sense == "text" else f"{name}.2.weight"] = (out, width)
    if other:
        shapes["modality_trunks.depth.blocks.0.attn.in_proj_weight"] = (3, 1)
        shapes["modality_postprocessors.text.1.log_logit_scale"] = ()
    return shapes


def imagebind(folder: Path) -> Path:
    path = folder / "imagebind.pth"
    widths = {"vision": 80, "text": 64, "audio": 64}
    shapes = imagebind_shapes(widths, dict.fromkeys(widths, 2), 32, len(CLIP_WORDS) + 40)
    weights = random(shapes, scale=0.2)
    weights["modality_preprocessors.text.mask"] = torch.full((77, 77), float("-inf")).triu(1)
    torch.save(weights, path)
    return path


def clip_tokenizer(folder: Path) -> Path:
    """A tokenizer of CLIP's kind with a few words; its end token has the greatest number."""
    from transformers import CLIPTokenizer

    folder = folder / "tokenizer"
    folder.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = [*letters[:13], *(f"{x}</w>" for x in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    return folder


class I3D(nn.Module):
    """The interface of i3d_torchscript.pt: 0..255 in, features out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 8, (3, 7, 7), (2, 7, 7))

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False,
        return_features: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        if rescale:
            x = x / 127.5 - 1
        return torch.relu(self.conv(x)).mean((3, 4)).flatten(1)


class PlainI3D(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean((2, 3, 4)), x.std((2, 3, 4))], 1)


class Synchformer(nn.Module):
    """Its belief is the lag between the loudest segment and the brightest."""

    def forward(self, seen: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        bright = seen.mean((2, 3, 4, 5)).argmax(1)
        loud = heard.mean((2, 3, 4)).argmax(1)
        offset = torch.clamp((loud - bright) * 0.32, -2.0, 2.0)
        grid = torch.linspace(-2.0, 2.0, 21)
        return -(grid[None] - offset[:, None]).abs()


def script(module: nn.Module, folder: Path) -> Path:
    path = folder / f"{type(module).__name__}.pt"
    torch.manual_seed(0)
    torch.jit.save(torch.jit.script(module.eval()), str(path))
    return path


def clap(folder: Path) -> Path:
    """A tiny CLAP with its extractor and tokenizer, saved as transformers does."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        ClapProcessor,
        PreTrainedTokenizerFast,
    )

    torch.manual_seed(0)
    audio = {
        "patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2],
        "hidden_size": 32, "projection_dim": 16, "spec_size": 128, "window_size": 4,
        "patch_size": 4, "patch_stride": [4, 4], "num_mel_bins": 64, "num_classes": 4,
    }  # fmt: skip
    text = {
        "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "projection_dim": 16, "max_position_embeddings": 40,
    }  # fmt: skip
    config = ClapConfig(audio_config=audio, text_config=text, projection_dim=16)
    folder = folder / "clap"
    ClapModel(config).save_pretrained(folder)
    words = ["<s>", "<pad>", "</s>", "<unk>", *CLIP_WORDS]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", model_max_length=30
    )
    extractor = ClapFeatureExtractor(
        truncation="rand_trunc", padding="repeatpad", max_length_s=2, fft_window_size=1024
    )
    ClapProcessor(extractor, tokenizer).save_pretrained(folder)
    return folder


def audio_classifier(folder: Path) -> Path:
    """A tiny AST with its extractor."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_length=64, num_mel_bins=32, num_labels=5,
    )  # fmt: skip
    folder = folder / "ast"
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=32, max_length=64).save_pretrained(folder)
    return folder
