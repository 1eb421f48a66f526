"""Trains in another gauge: the same tensor, in cores that few bits spoil less."""

import copy

import pytest
import torch
from torch import nn

import ttqlib as ttq
from tests.cases import refused


def train_of(*shape: int, decay: float = 0.5) -> list[torch.Tensor]:
    """The TT-SVD of a tensor whose singular values fall quickly, in float64."""
    torch.manual_seed(0)
    tensor = torch.randn(shape, dtype=torch.float64)
    for axis, size in enumerate(shape):
        tensor = tensor.movedim(axis, -1) * decay ** torch.arange(size)
        tensor = tensor.movedim(-1, axis)
    return ttq.tt_svd(tensor, rank=6)


def model() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(60, 24, padding_idx=0), nn.Linear(24, 48), nn.Linear(48, 24, bias=False))
    with torch.no_grad():
        for layer in net:
            layer.weight.mul_(0.7 ** torch.arange(layer.weight.shape[1]))
    return net.double()


def config(bits: int = 3) -> ttq.TTQConfig:
    words = ttq.LayerPlan(ttq.TTM(8, (60, 1), (1, 24)), ttq.LSQ(bits))
    linear = ttq.LayerPlan(ttq.TT(8), ttq.LSQ(bits))
    return ttq.TTQConfig({"0": words, "1": linear, "2": linear})


IDS = torch.tensor([[0, 7, 59, 31]])


@pytest.mark.parametrize("centre", [0, 1, 3])
def test_all_cores_but_the_centre_are_orthonormal(centre):
    cores = train_of(5, 6, 7, 4)
    turned = ttq.canonical_form(cores, centre)
    torch.testing.assert_close(ttq.tt_to_tensor(turned), ttq.tt_to_tensor(cores))
    for k, core in enumerate(turned):
        tall = core.flatten(0, -2) if k < centre else core.flatten(1).T
        is_orthonormal = torch.allclose(tall.T @ tall, torch.eye(tall.shape[1], dtype=tall.dtype))
        assert is_orthonormal == (k != centre)
    torch.testing.assert_close(turned[centre].norm(), ttq.tt_to_tensor(cores).norm())


@pytest.mark.parametrize("centre", [-1, 3])
def test_a_centre_that_is_no_core_is_refused(centre):
    with refused(ValueError, "centre must be one of the 3 cores, from 0 on", f"got {centre}"):
        ttq.canonical_form([torch.ones(1, 2, 2), torch.ones(2, 2, 2), torch.ones(2, 2, 1)], centre)


@pytest.mark.parametrize("size", [1e-22, 1e22])
def test_norms_whose_squares_leave_float32_are_balanced(size):
    linear = nn.Linear(64, 64)
    linear.weight.data.mul_(size)
    layer = ttq.TTLinear.from_linear(linear, rank=8)
    norms = torch.stack([core.double().norm() for core in layer.cores])
    assert norms.isfinite().all() and norms.max() < 1.001 * norms.min()


def test_a_rank_that_a_neighbour_cannot_use_is_cut():
    cores = [torch.randn(1, 3, 8, dtype=torch.float64), torch.randn(8, 4, 1, dtype=torch.float64)]
    turned = ttq.canonical_form(cores, 1)
    assert [tuple(core.shape) for core in turned] == [(1, 3, 3), (3, 4, 1)]
    torch.testing.assert_close(ttq.tt_to_tensor(turned), ttq.tt_to_tensor(cores))


def test_turned_bonds_are_the_same_tensor_and_every_seed_another_train():
    cores = train_of(5, 6, 7, 4)
    turned, again, other = (ttq.rotate_bonds(cores, seed) for seed in (0, 0, 1))
    torch.testing.assert_close(ttq.tt_to_tensor(turned), ttq.tt_to_tensor(cores))
    for core, same, different, before in zip(turned, again, other, cores):
        assert torch.equal(core, same) and not torch.allclose(core, different) and not torch.allclose(core, before)
        torch.testing.assert_close(core.norm(), before.norm())  # a rotation changes no length


def test_no_seed_is_taken_from_the_reader():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    ttq.rotate_(ttq.compress_(model(), config().without_quantizers()))
    torch.manual_seed(3)
    ttq.rotate_bonds(train_of(5, 6))
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), expected)


def test_a_turned_model_computes_what_it_did():
    net = ttq.compress_(model(), config().without_quantizers())
    expected, cores = net(IDS), [core.clone() for layer in net for core in layer.cores]
    assert ttq.rotate_(net) is net
    torch.testing.assert_close(net(IDS), expected, rtol=0, atol=1e-10)
    assert not any(torch.allclose(*pair) for pair in zip([core for layer in net for core in layer.cores], cores))
    assert (net[0](IDS)[0, 0].abs() < 1e-12).all()  # padding is still looked up as zeros


def test_few_bits_spoil_a_turned_model_less():
    plain = ttq.compress_(model(), config().without_quantizers())
    turned, expected = ttq.rotate_(copy.deepcopy(plain)), plain(IDS)
    errors = [ttq.relative_error(expected, ttq.compress_(net, config())(IDS)) for net in (plain, turned)]
    assert errors[1] < 0.8 * errors[0], errors


def test_gaussian_cores_gain_nothing():
    """The control: entries that are Gaussian already stay so."""
    torch.manual_seed(0)
    cores = [torch.randn(shape) for shape in ((1, 30, 12), (12, 30, 12), (12, 30, 1))]
    errors = []
    for train in (cores, ttq.rotate_bonds(cores)):
        coarse = [ttq.LSQ(4).build(core)(core).detach() for core in train]
        errors.append(ttq.relative_error(ttq.tt_to_tensor(cores), ttq.tt_to_tensor(coarse)))
    assert 0.9 < errors[1] / errors[0] < 1.1


def test_quantized_cores_are_refused_and_nothing_is_turned():
    formats = config().without_quantizers().layers
    net = ttq.compress_(model(), ttq.TTQConfig({**formats, "1": config().layers["1"]}))
    before = [core.clone() for core in net[0].cores]
    with refused(ValueError, "1", "without_quantizers"):
        ttq.rotate_(net)
    assert all(torch.equal(*pair) for pair in zip(before, net[0].cores))


def test_a_model_without_trains_stays_as_it_is():
    net = model()
    before = net(IDS)
    assert torch.equal(ttq.rotate_(net)(IDS), before)
