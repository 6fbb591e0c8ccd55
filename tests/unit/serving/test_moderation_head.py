"""The moderation head's file: what tuning changed comes back, and products laid out for the
processor compute what plain ones do."""

from __future__ import annotations

import pytest
import torch
from benchmarks.fit_moderation import halfway, read_by

from afina.model.encoder import Layer, prepared
from afina.serving.moderation_head import packed_delta, with_delta

WIDTH = 128


def a_layer(seed: int, dtype: torch.dtype) -> Layer:
    draw = torch.Generator().manual_seed(seed)
    layer = {
        f"{name}.w": torch.randn(rows, columns, generator=draw).mul(0.05).to(dtype)
        for name, rows, columns in (
            ("qkv", 3 * WIDTH, WIDTH),
            ("ao", WIDTH, WIDTH),
            ("fi", 4 * WIDTH, WIDTH),
            ("fo", WIDTH, 4 * WIDTH),
        )
    }
    layer |= {
        f"{name}.b": torch.zeros(len(layer[f"{name}.w"]), dtype=dtype)
        for name in ("qkv", "ao", "fi", "fo")
    }
    return layer | {f"{name}.{kind}": torch.ones(WIDTH) for name in ("aln", "oln") for kind in "wb"}


class Network:
    depth = 3

    def layer(self, number: int) -> Layer:
        return a_layer(number, torch.float32)


def test_tuned_layers_come_back_from_four_bits_nearly_as_they_were() -> None:
    network = Network()
    draw = torch.Generator().manual_seed(9)
    tuned = [
        {n: t + 0.003 * torch.randn(t.shape, generator=draw) for n, t in network.layer(i).items()}
        for i in (1, 2)
    ]
    packed = packed_delta(network, tuned)
    assert {t.dtype for n, t in packed.items() if n.endswith(".codes")} == {torch.uint8}
    for number, back in enumerate(with_delta(network, packed)):
        for name, tensor in back.items():
            lost = (tensor - tuned[number][name]).norm()
            changed = (tensor - network.layer(number + 1)[name]).norm()
            assert lost <= (0.15 * changed if tensor.ndim == 2 else 1e-6)


def test_a_head_that_changes_nothing_is_the_encoder_itself() -> None:
    network = Network()
    (back,) = with_delta(network, packed_delta(network, [network.layer(2)]))
    assert all(torch.equal(back[n], t) for n, t in network.layer(2).items())


def test_a_head_halfway_between_two_has_the_mean_of_their_layers_and_logistic_layers() -> None:
    network = Network()
    heads, ends = [], []
    for seed in (5, 6):
        draw = torch.Generator().manual_seed(seed)
        layer = {
            n: t + 0.003 * torch.randn(t.shape, generator=draw) for n, t in network.layer(2).items()
        }
        ends.append(layer)
        prior = {"prior.w": torch.full((13, 4), float(seed)), "prior.b": torch.full((13,), 1.0)}
        head = packed_delta(network, [layer]) | {"out.w": torch.zeros(13, 4)}
        heads.append(head | {"out.b": torch.zeros(13)} | (prior if seed == 5 else {}))
    made = halfway(network, *heads)
    assert torch.equal(made["out.w"], torch.full((13, 4), 2.5))
    assert torch.equal(made["out.b"], torch.full((13,), 0.5))
    assert torch.equal(made["calibration"], torch.stack([torch.ones(13), torch.zeros(13)]))
    (back,) = with_delta(network, made)
    for name, tensor in back.items():
        middle = (ends[0][name] + ends[1][name]) / 2
        changed = (middle - network.layer(2)[name]).norm()
        assert (tensor - middle).norm() <= (0.25 * changed if tensor.ndim == 2 else 1e-6)


def test_what_one_of_two_averaged_heads_read_is_new_to_their_mean() -> None:
    assert read_by({"manners": ["odd", "told"], "read_by_both": ["told"]}) == ["told"]
    assert read_by({"manners": ["odd", "told"]}) == ["odd", "told"]
    assert read_by({}) == ["first", "plain"]


@pytest.mark.skipif(not torch._C._has_mkldnn, reason="plain products only")
def test_a_layer_laid_out_for_the_processor_keeps_its_weights() -> None:
    plain = a_layer(1, torch.bfloat16)
    laid_out = prepared(plain)
    for name, tensor in plain.items():
        kept = laid_out[name]
        assert torch.equal(kept.to_dense() if kept.is_mkldnn else kept, tensor)
    assert prepared(a_layer(1, torch.float32)).keys() == plain.keys()
