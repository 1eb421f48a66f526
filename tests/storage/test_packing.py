"""Streams of bits: exact for any width and length, and refused where they are not what was packed."""

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import refused, seeds
from ttqlib.storage import bits as streams
from ttqlib.storage.bits import pack, packed_bytes, unpack
from ttqlib.storage.files import DTYPES, digest, module_bytes, specs_of

WIDTHS = st.integers(1, 8)


def codes(count: int, bits: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2**bits, (count,), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@given(st.lists(st.tuples(st.integers(0, 70), WIDTHS), max_size=5), seeds, st.sampled_from([1, 7, 32, streams.BLOCK]))
def test_any_widths_and_lengths_come_back_and_take_no_bit_too_many(counts, seed, block):
    parts = [(codes(count, bits, seed + k), bits) for k, (count, bits) in enumerate(counts)]
    packed = pack(parts)
    assert len(packed) == packed_bytes(counts) == (sum(count * bits for count, bits in counts) + 7) // 8
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK", block)
        back = unpack(packed, counts)
    for (before, _), after in zip(parts, back, strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("bits", range(1, 9))
def test_all_codes_of_a_width_come_back(bits):
    everything = torch.arange(2**bits, dtype=torch.uint8).reshape(2, -1)
    (back,) = unpack(pack([(everything, bits)]), [(2**bits, bits)])
    assert torch.equal(back, everything.flatten())


def test_the_stream_by_hand():
    """1, 2, 3 in 2 bits and 5 in 3, lowest bit first: 10 01 11 101, filled up with zeros."""
    packed = pack([(torch.tensor([1, 2, 3], dtype=torch.uint8), 2), (torch.tensor([5], dtype=torch.uint8), 3)])
    assert packed.tolist() == [0b01111001, 0b00000001]


@pytest.mark.parametrize("bits", [0, 9, -1, 2.0, True])
def test_a_width_outside_1_to_8_is_refused(bits):
    with refused(ValueError, "bits must be a whole number from 1 to 8", repr(bits)):
        pack([(codes(3, 1), bits)])
    with refused(ValueError, "bits must be a whole number from 1 to 8"):
        unpack(torch.zeros(1, dtype=torch.uint8), [(3, bits)])


def test_codes_that_do_not_fit_are_refused():
    with refused(ValueError, "below 2^2", "got 4"):
        pack([(torch.tensor([1, 4], dtype=torch.uint8), 2)])
    with refused(TypeError, "uint8", "int64"):
        pack([(torch.tensor([1]), 2)])


def test_a_stream_of_another_length_or_with_other_bits_is_refused():
    packed = pack([(codes(5, 3), 3)])  # 15 bits
    for wrong in (packed[:-1], torch.cat([packed, packed[:1]]), packed.to(torch.int32), packed.reshape(1, -1)):
        with refused(ValueError, "packed codes must be 2 bytes"):
            unpack(wrong, [(5, 3)])
    packed[-1] |= 128
    with refused(ValueError, "bits that are no code"):
        unpack(packed, [(5, 3)])


def test_the_digest_sees_every_part():
    plan, tensors = {"rest": 8}, {"a": torch.arange(6.0), "b": torch.zeros(0, dtype=torch.uint8)}
    changed = torch.arange(6.0)
    changed[5] = -5.0
    others = [
        digest({"rest": 16}, tensors),
        digest(plan, {"a": tensors["a"], "c": tensors["b"]}),
        digest(plan, {**tensors, "a": tensors["a"].reshape(2, 3)}),
        digest(plan, {**tensors, "a": tensors["a"].view(torch.int32)}),
        digest(plan, {**tensors, "a": changed}),
        digest(plan, {"a": tensors["a"]}),
    ]
    assert len({digest(plan, tensors), *others}) == 1 + len(others)
    assert digest(plan, dict(reversed(tensors.items()))) == digest(plan, tensors)


@given(st.lists(st.tuples(st.sampled_from(list(DTYPES)), st.integers(0, 300)), max_size=12), st.text(max_size=9))
def test_a_header_is_as_long_as_safetensors_makes_it(kinds, text):
    tensors = {f"layer.{n % 3}.ü{n}": torch.zeros(3, size, dtype=dtype) for n, (dtype, size) in enumerate(kinds)}
    metadata = {"format": "pt", "note": text}
    written = len(safetensors.torch.save(tensors, metadata)) - sum(tensor.nbytes for tensor in tensors.values())
    assert module_bytes(specs_of(tensors), metadata)["header"] == written
