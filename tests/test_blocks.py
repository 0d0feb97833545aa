"""Blocks: decoding against gguf-py and by eye, rows out of tables, and MatMulNBits run for real."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sigrun.blocks import BLOCKS, decode, rows_of
from sigrun.errors import ArtifactError
from sigrun.nbits import NBits, to_nbits
from sigrun_recipes.encodings import ENCODINGS

K_QUANTS = ("q4_k", "q5_k", "q6_k")
NBITS = ("q4_k", "q5_k", "q6_k", "q8_0")
HALF_AT = {"f16": (0,), "q8_0": (0,), "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208,)}
FINITE_HALVES = np.array([h for h in range(1 << 16) if h & 0x7C00 != 0x7C00], "<u2")  # all 63,488 of them
EVERYDAY_HALVES = np.linspace(1e-4, 2e-3, 997).astype("<f2").view("<u2")


def some_bytes(encoding: str, blocks: int, halves: NDArray[np.uint16], seed: int = 0) -> NDArray[np.uint8]:
    """Random blocks whose float16 scales come from ``halves``, each in turn."""
    rng = np.random.default_rng(seed)
    out = rng.integers(0, 256, (blocks, BLOCKS[encoding].size), dtype=np.uint8)
    if encoding == "f32":
        return rng.standard_normal(blocks).astype("<f4").view(np.uint8)
    for i, at in enumerate(HALF_AT[encoding]):
        # 7919 is prime to the number of halves: every pair (d, dmin) is a different one.
        chosen = np.resize(halves, blocks) if i == 0 else halves[np.arange(blocks) * 7919 % len(halves)]
        out[:, at : at + 2] = chosen.astype("<u2").view(np.uint8).reshape(-1, 2)
    return out.reshape(-1)


def same_bits(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return a.dtype == b.dtype == np.float32 and np.array_equal(a.view(np.uint32), b.view(np.uint32))


def test_geometry_is_that_of_the_recipes() -> None:
    assert {n: tuple(b) for n, b in BLOCKS.items()} == {n: (e.weights, e.size) for n, e in ENCODINGS.items()}


@pytest.mark.parametrize("encoding", list(BLOCKS))
def test_decode_is_gguf_py_bit_for_bit(encoding: str) -> None:
    data = some_bytes(encoding, 63_488 if encoding in ("f16", "q8_0") else 5_003, FINITE_HALVES)
    theirs = dequantize(data.reshape(1, -1), GGMLQuantizationType[encoding.upper()])
    assert same_bits(decode(encoding, data), theirs.reshape(-1))


@pytest.mark.parametrize("encoding", K_QUANTS)
def test_decode_is_gguf_py_for_every_finite_scale(encoding: str) -> None:
    # In slices, to keep gguf-py's temporaries small.
    everything = some_bytes(encoding, len(FINITE_HALVES), FINITE_HALVES).reshape(-1, BLOCKS[encoding].size)
    for part in np.array_split(everything, 31):
        theirs = dequantize(part.reshape(1, -1), GGMLQuantizationType[encoding.upper()])
        assert same_bits(decode(encoding, part.reshape(-1)), theirs.reshape(-1))


def test_q8_0_by_eye() -> None:
    block = bytes.fromhex("003c") + bytes([0, 1, 127, 0x80, 0xFF]) + bytes(27)  # d = 1
    assert decode("q8_0", np.frombuffer(block, np.uint8)).tolist() == [0, 1, 127, -128, -1] + [0] * 27


def test_q4_k_by_eye() -> None:
    # d = 1, dmin = 0.5. Sub-block 0: scale 1, minimum 2. Sub-block 1: scale 2, minimum 0. Sub-block 4: scale 0b110011,
    # its low bits in byte 8, its high bits on top of byte 0. Sub-block 5: minimum 0b100001, likewise bytes 9 and 5.
    codes = [0b11_000001, 2, 0, 0, 2, 0b10_000000, 0, 0, 0x03, 0x10, 0, 0]
    # Bytes 0-31: low nibbles are sub-block 0, high ones sub-block 1; bytes 64-95: sub-blocks 4 and 5.
    nibbles = [0] * 128
    nibbles[0], nibbles[31], nibbles[64] = 0x5F, 0x10, 0x03
    block = bytes.fromhex("003c 0038") + bytes(codes) + bytes(nibbles)
    assert len(block) == 144
    weights = decode("q4_k", np.frombuffer(block, np.uint8)).reshape(8, 32)
    assert weights[0].tolist() == [15 - 1.0] + [-1.0] * 31
    assert weights[1].tolist() == [2 * 5.0] + [0.0] * 30 + [2.0]
    assert weights[4].tolist() == [51 * 3.0] + [0.0] * 31
    assert weights[5].tolist() == [-0.5 * 33] * 32
    assert not weights[[2, 3, 6, 7]].any()


def test_q5_k_by_eye() -> None:
    # d = 2, dmin = 1; scale 1 in sub-blocks 0 and 7. Bit 0 of high byte 0 and bit 7 of high byte 1 are set.
    codes = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x31]  # sub-block 7: scale 1, minimum 3
    high = [0b00000001, 0b10000000] + [0] * 30
    low = [0] * 128
    low[0], low[97] = 0x0F, 0x20
    block = bytes.fromhex("0040 003c") + bytes(codes) + bytes(high) + bytes(low)
    assert len(block) == 176
    weights = decode("q5_k", np.frombuffer(block, np.uint8)).reshape(8, 32)
    assert weights[0].tolist() == [2 * 31.0] + [0.0] * 31
    assert weights[7].tolist() == [-3.0, 2 * 18.0 - 3] + [-3.0] * 30


def test_q6_k_by_eye() -> None:
    # d = 1. Scale 1 for the first sixteen weights, -2 for the last sixteen, 0 between. q is stored with 32 added.
    low, high = [0] * 128, [0] * 64
    low[0], high[0] = 0x0F, 0b00000011  # weight 0: 63 - 32
    low[1], high[1] = 0x01, 0b00000010  # weight 1: 33 - 32
    low[127], high[63] = 0xF0, 0b01000000  # weight 255: 31 - 32
    block = bytes(low) + bytes(high) + bytes([1] + [0] * 14 + [0xFE]) + bytes.fromhex("003c")
    assert len(block) == 210
    weights = decode("q6_k", np.frombuffer(block, np.uint8))
    assert weights[:16].tolist() == [31, 1] + [-32] * 14
    assert not weights[16:240].any()
    assert weights[240:].tolist() == [64.0] * 15 + [2.0]


@pytest.mark.parametrize("encoding", ["q4_k", "f16"])
def test_not_whole_blocks(encoding: str) -> None:
    with pytest.raises(ArtifactError, match=rf"not whole {encoding} blocks of {BLOCKS[encoding].size} bytes"):
        decode(encoding, np.zeros(BLOCKS[encoding].size + 1, np.uint8))


def test_unknown_encoding() -> None:
    with pytest.raises(ArtifactError, match="unknown encoding 'q3_k'; known here: f32, f16"):
        decode("q3_k", np.zeros(110, np.uint8))


def test_floats_may_lie_anywhere_in_memory() -> None:
    weights = np.arange(5, dtype="<f4")
    shifted = np.concatenate([np.zeros(1, np.uint8), weights.view(np.uint8)])[1:]
    assert decode("f32", shifted).tolist() == weights.tolist()


@given(encoding=st.sampled_from(list(BLOCKS)), blocks=st.integers(0, 70), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_decode_goes_block_by_block(encoding: str, blocks: int, seed: int) -> None:
    data = some_bytes(encoding, blocks, FINITE_HALVES[seed:], seed)
    weights, size = BLOCKS[encoding]
    whole = decode(encoding, data)
    assert whole.shape == (blocks * weights,)
    for b in range(0, blocks, 9):
        one = decode(encoding, data[b * size : (b + 1) * size])
        assert same_bits(one, whole[b * weights : (b + 1) * weights])


# ---------------------------------------------------------------------------------------------- rows of a table


@given(
    encoding=st.sampled_from(list(BLOCKS)),
    columns=st.sampled_from([32, 64, 96, 256, 288, 512, 1152]),
    fold=st.integers(1, 4),
    index=st.lists(st.integers(0, 7), max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_rows_of_is_decode(encoding: str, columns: int, fold: int, index: list[int]) -> None:
    rows = 8 * fold
    data = some_bytes(encoding, rows * columns // BLOCKS[encoding].weights, EVERYDAY_HALVES)
    wanted = np.array(index, np.int64) * fold
    got = rows_of(encoding, data, columns, wanted)
    assert same_bits(got, decode(encoding, data).reshape(rows, columns)[wanted])


def test_rows_of_many_rows_at_once() -> None:
    data = some_bytes("q4_k", 9 * 300, EVERYDAY_HALVES)  # 600 rows of 1152, folded in pairs
    index = np.random.default_rng(0).permutation(600)
    assert same_bits(rows_of("q4_k", data, 1152, index), decode("q4_k", data).reshape(600, 1152)[index])


def test_rows_of_needs_only_its_blocks() -> None:
    data = some_bytes("q6_k", 9 * 10, EVERYDAY_HALVES).reshape(-1, 210)
    whole = decode("q6_k", data.reshape(-1)).reshape(20, 1152)
    damaged = np.full_like(data, 0xFF)
    damaged[22:28] = data[22:28]  # row 5 is weights 5760-6911: the second half of block 22, blocks 23-26
    assert same_bits(rows_of("q6_k", damaged.reshape(-1), 1152, np.array([5])), whole[5:6])


@pytest.mark.parametrize("index", [[-1], [3, 20], [1 << 40]])
def test_rows_of_out_of_range(index: list[int]) -> None:
    data = some_bytes("q4_k", 9 * 10, EVERYDAY_HALVES)
    with pytest.raises(IndexError, match="of a table of 20 rows"):
        rows_of("q4_k", data, 1152, np.array(index))


def test_rows_of_a_table_that_is_not_whole_rows() -> None:
    with pytest.raises(ArtifactError, match="256 weights are not whole rows of 96"):
        rows_of("q4_k", some_bytes("q4_k", 1, EVERYDAY_HALVES), 96, np.array([0]))


# ---------------------------------------------------------------------------------------------- MatMulNBits


def run_matmul(n: NBits, columns: int) -> NDArray[np.float32]:
    """The weights [rows, columns] that ONNX Runtime's operator works with: its product with the unit matrix."""
    rows = n.q.shape[0]
    constants = {"q": n.q, "scales": n.scales.reshape(-1)}
    if n.zeros is not None:
        constants["zeros"] = n.zeros.reshape(-1)
    node = helper.make_node(
        "MatMulNBits",
        ["a", *constants],
        ["y"],
        domain="com.microsoft",
        K=columns,
        N=rows,
        bits=n.bits,
        block_size=n.block_size,
        accuracy_level=0,
    )
    graph = helper.make_graph(
        [node],
        "matmul",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, rows])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(
        onnx.ModelProto.SerializeToString(model), providers=["CPUExecutionProvider"]
    )
    product: NDArray[np.float32] = session.run(None, {"a": np.eye(columns, dtype=np.float32)})[0]
    if n.minima is None:
        return product.T
    return product.T - np.repeat(
        n.minima, n.block_size, axis=1
    )  # what the graph subtracts, for activations of one


@pytest.mark.parametrize("encoding", NBITS)
@pytest.mark.parametrize(("rows", "columns"), [(16, 1152), (3, 256), (5, 4352)])
def test_matmul_works_with_the_stored_numbers(encoding: str, rows: int, columns: int) -> None:
    data = some_bytes(encoding, rows * columns // BLOCKS[encoding].weights, EVERYDAY_HALVES)
    n = to_nbits(encoding, data, rows, columns)
    assert n.q.shape == (rows, columns // n.block_size, n.block_size * n.bits // 8)
    assert n.scales.shape == (rows, columns // n.block_size)
    weights = decode(encoding, data).reshape(rows, columns)
    assert np.abs(run_matmul(n, columns) - weights).max() < 1e-6 * np.abs(weights).max()


def weights_of(n: NBits) -> NDArray[np.float64]:
    """The operator's definition, in float64: [rows * blocks, block size]."""
    q = n.q if n.bits == 8 else np.stack([n.q & 15, n.q >> 4], axis=-1)
    q = q.reshape(-1, n.block_size).astype(np.float64)
    zeros = np.float64(128) if n.zeros is None else n.zeros.reshape(-1, 1).astype(np.float64)
    minima = np.float64(0) if n.minima is None else n.minima.reshape(-1, 1).astype(np.float64)
    return n.scales.reshape(-1, 1).astype(np.float64) * (q - zeros) - minima


@pytest.mark.parametrize("encoding", NBITS)
def test_nbits_for_every_finite_scale(encoding: str) -> None:
    everything = some_bytes(encoding, len(FINITE_HALVES), FINITE_HALVES).reshape(-1, BLOCKS[encoding].size)
    for part in np.array_split(everything, 31):
        n = to_nbits(encoding, part.reshape(-1), len(part), BLOCKS[encoding].weights)
        assert np.isfinite(n.scales).all()
        ours = weights_of(n)
        weights = decode(encoding, part.reshape(-1)).reshape(ours.shape).astype(np.float64)
        offset = n.minima if n.zeros is None else n.scales * n.zeros
        if offset is None:
            assert np.array_equal(ours, weights)
        else:
            assert np.isfinite(offset).all()
            # Where scale * q and the minimum nearly cancel, what is left is exact only next to the two.
            minima = np.abs(offset).reshape(-1, 1).astype(np.float64)
            assert (np.abs(ours - weights) <= 1.2e-7 * (np.abs(weights) + minima)).all()


def test_nbits_of_flat_sub_blocks() -> None:
    # d = 0 in the first block, scale codes 0 in the second: every weight is minus its minimum, or 0.
    data = some_bytes("q4_k", 2, EVERYDAY_HALVES).reshape(2, 144)
    data[0, 0:2] = 0
    data[1, 4:16] = [0, 0, 0, 0, 0, 1, 2, 63, 0, 0, 0, 0]
    n = to_nbits("q4_k", data.reshape(-1), 2, 256)
    weights = decode("q4_k", data.reshape(-1)).reshape(2, 256)
    assert np.array_equal(weights_of(n).reshape(2, 256), weights)
    assert np.array_equal(run_matmul(n, 256), weights)


def test_nbits_refuses_plain_floats() -> None:
    with pytest.raises(ArtifactError, match="f16 has no MatMulNBits form") as caught:
        to_nbits("f16", some_bytes("f16", 2304, EVERYDAY_HALVES), 2, 1152)
    assert caught.value.hint == "decode it to floats instead"


def test_nbits_refuses_wrong_shapes() -> None:
    data = some_bytes("q4_k", 9, EVERYDAY_HALVES)
    with pytest.raises(ArtifactError, match="2304 weights are not a matrix of 2 x 1024"):
        to_nbits("q4_k", data, 2, 1024)
    assert to_nbits("q4_k", data[:0], 0, 256).q.shape == (0, 8, 16)
    with pytest.raises(ArtifactError, match="rows of 48 weights are not whole q4_k sub-blocks of 32"):
        to_nbits("q4_k", data, 48, 48)


def test_threads_do_not_disturb_each_other() -> None:
    jobs = [(e, some_bytes(e, 9 * 256, EVERYDAY_HALVES, seed)) for e in NBITS for seed in range(4)]

    def unpack(job: tuple[str, NDArray[np.uint8]]) -> tuple[bytes, bytes]:
        encoding, data = job
        n = to_nbits(encoding, data, 9 * 256, BLOCKS[encoding].weights)
        return n.q.tobytes(), n.scales.tobytes() + decode(encoding, data).tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(unpack, jobs)) == [unpack(job) for job in jobs]
