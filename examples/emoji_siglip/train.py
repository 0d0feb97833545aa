"""Train the emoji SigLIP with the pairwise sigmoid loss.

    python -m examples.emoji_siglip.train --data DIR --run RUN --steps 4000 --decay-steps 1200

The rate warms up, stays, and falls linearly to zero over the last `--decay-steps`. A run that is started anew
with the same `--run` goes on from its last checkpoint, so a stable run can be ended there by a decay.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from examples.emoji_siglip.batches import Sampler
from examples.emoji_siglip.concepts import build_captions, load_concepts
from examples.emoji_siglip.drawings import load
from examples.emoji_siglip.evaluate import heldout_pixels, zero_shot
from examples.emoji_siglip.fetch import DEFAULT_DATA
from examples.emoji_siglip.model import build_model
from examples.emoji_siglip.tokenizer import encode, open_tokenizer, train_tokenizer, write_tokenizer_files

if TYPE_CHECKING:
    from transformers import SiglipModel

WARM_UP = 100
EMA = 0.995


def plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention as plain operations: on a CPU several times faster backwards than the fused kernel."""
    scores = torch.matmul(query, key.transpose(-1, -2)) * options.get("scaling", query.shape[-1] ** -0.5)
    mixed = torch.matmul(scores.softmax(-1), value)
    return mixed.transpose(1, 2).contiguous(), None


def text_embeds(model: SiglipModel, input_ids: Tensor) -> Tensor:
    """The text tower's output; the last layer serves only the last position, which alone is pooled."""
    tower = model.text_model
    hidden = tower.embeddings(input_ids=input_ids)
    *layers, last = tower.encoder.layers
    for layer in layers:
        output = layer(hidden, None)
        hidden = output if isinstance(output, Tensor) else output[0]
    attention, normed = last.self_attn, last.layer_norm1(hidden)
    parts = (attention.q_proj(normed[:, -1:]), attention.k_proj(normed), attention.v_proj(normed))
    query, key, value = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in parts)
    mixed, _ = plain_attention(attention, query, key, value, None)
    pooled = hidden[:, -1:] + attention.out_proj(mixed.flatten(2))
    pooled = pooled + last.mlp(last.layer_norm2(pooled))
    return cast(Tensor, tower.head(tower.final_layer_norm(pooled[:, 0])))


class Towers(nn.Module):
    """Both towers in one forward call, for `functional_call` with bfloat16 copies of the weights."""

    def __init__(self, model: SiglipModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of pictures and texts, not normalised."""
        image = self.model.vision_model(pixel_values=pixel_values).pooler_output
        return image, text_embeds(self.model, input_ids)


def sigmoid_loss(image: Tensor, text: Tensor, match: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """SigLIP's loss: every (picture, text) pair is one yes-or-no question; summed, a picture."""
    image, text = functional.normalize(image.float(), dim=-1), functional.normalize(text.float(), dim=-1)
    logits = scale.exp() * image @ text.T + bias
    return -functional.logsigmoid(torch.where(match, logits, -logits)).sum() / len(image)


def build_optimizers(
    model: SiglipModel, rate: float, decay: float, muon: bool
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the towers, AdamW for everything else; scale and bias move faster."""
    matrices, rest, scores = [], [], []
    for name, weight in model.named_parameters():
        if name.startswith("logit_"):
            scores.append(weight)
        elif weight.ndim == 2 and "embedding" not in name:
            matrices.append(weight)
        else:
            rest.append(weight)
    groups: list[dict[str, Any]] = [
        {"params": rest, "weight_decay": 0.0, "lr": rate},
        {"params": scores, "weight_decay": 0.0, "lr": 5 * rate},
    ]
    optimizers: list[torch.optim.Optimizer] = []
    if muon:
        optimizers.append(
            torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        )
    else:
        groups.append({"params": matrices, "weight_decay": decay, "lr": rate})
    optimizers.append(torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-8))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["top"] = group["lr"]
    return optimizers


def rate_at(step: int, steps: int, decay_steps: int) -> float:
    """Share of the top rate: warm-up, stable, linear decay."""
    return min((step + 1) / WARM_UP, 1.0, max(steps - step, 0) / max(decay_steps, 1))


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint beside its final name, then rename it."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def train(args: argparse.Namespace) -> None:
    """The training loop."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register("plain", plain_attention)
    device = torch.device(args.device)
    run: Path = args.run
    run.mkdir(parents=True, exist_ok=True)
    concepts = load_concepts(args.data)
    captions = build_captions(concepts)
    if not (run / "tokenizer" / "tokenizer.json").is_file():
        write_tokenizer_files(train_tokenizer(concepts, captions, run / "pieces"), run / "tokenizer")
    ids = torch.tensor(encode(open_tokenizer(run / "tokenizer"), captions.texts))
    random = torch.Generator().manual_seed(args.seed)
    sampler = Sampler(load(args.data, concepts), captions, ids, random)
    test_pixels, test_ids = heldout_pixels(args.data, concepts), ids[captions.main]

    model = build_model(args.seed).to(device)
    model.set_attn_implementation("plain")
    towers = Towers(model)
    weights = dict(model.named_parameters())
    average = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizers = build_optimizers(model, args.rate, args.weight_decay, args.optimizer == "muon")
    start, path = 0, run / "last.pt"
    if path.is_file():
        state = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        average = state["average"]
        for optimizer, content in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(content)
        random.set_state(state["random"].cpu())
        start = state["step"]
        print(f"resumed at step {start}", file=sys.stderr)

    clock, loss_mean = time.monotonic(), 0.0
    for step in range(start, args.steps):
        share = rate_at(step, args.steps, args.decay_steps)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["top"] * share
        batch = sampler.draw(args.concepts, args.views)
        copies = {f"model.{name}": weight.bfloat16() for name, weight in weights.items()}
        inputs = (batch.pixel_values.to(device).bfloat16(), batch.input_ids.to(device))
        image, text = torch.func.functional_call(towers, copies, inputs)
        loss = sigmoid_loss(image, text, batch.match.to(device), model.logit_scale, model.logit_bias)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            keep = min(EMA, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(average.values()), list(weights.values()), 1 - keep)
            loss_mean = loss.item() if step == start else 0.98 * loss_mean + 0.02 * loss.item()
        done = step + 1
        if done % 25 == 0 or done == args.steps:
            pace = (time.monotonic() - clock) / (done - start)
            left = pace * (args.steps - done) / 60
            scale, bias = model.logit_scale.exp().item(), model.logit_bias.item()
            print(
                f"{time.strftime('%H:%M:%S')} step {done}/{args.steps} loss {loss_mean:.3f} "
                f"scale {scale:.2f} bias {bias:.2f} rate {share:.2f}, {pace:.2f} s a step, "
                f"{left:.0f} min left",
                file=sys.stderr,
                flush=True,
            )
        if done % args.every == 0 or done == args.steps:
            current = {name: weight.detach().clone() for name, weight in weights.items()}
            model.load_state_dict(average, strict=False)
            top1, top5 = zero_shot(model, test_pixels, test_ids, device)
            figures = f"held out top-1 {top1:.2%}, top-5 {top5:.2%}"
            print(f"step {done}: {figures} (averaged weights)", file=sys.stderr)
            model.load_state_dict(current, strict=False)
            state = {
                "model": model.state_dict(),
                "average": average,
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "random": random.get_state(),
                "step": done,
            }
            save(path, state)
            if done % (3 * args.every) == 0 or done == args.steps:
                save(run / f"step-{done:05d}.pt", state)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="data folder (default: %(default)s)")
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints of this run")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--decay-steps", type=int, default=1200)
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--concepts", type=int, default=256, help="captions in a batch")
    parser.add_argument("--views", type=int, default=2, help="drawings of each concept in a batch")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="torch threads (default: torch's own choice)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    train(args)


if __name__ == "__main__":
    main()
