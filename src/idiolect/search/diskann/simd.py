"""SIMD kernels: inner products and distances, written with LLVM vector types.

numba vectorizes simple loops, but not products of 4-bit and 8-bit integers, and not with several
independent accumulators. The rows that these functions read are aligned to 64 bytes and padded with
zeros to a multiple of 64 bytes (a line), so there are no remainders. Addresses are integers.

Byte `j` of line `b` of a row of 4-bit codes holds dimension `128 b + j` in its low half and
dimension `128 b + 64 + j` in its high half. So one load, one shift and two masks yield two lines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "dot",
    "dot_int4",
    "dot_int8",
    "dot_int8_tile",
    "has_byte_products",
    "popcount",
    "prefetch",
    "squared_distance",
]

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_F32 = ir.FloatType()
_BYTES = ir.VectorType(_I8, 64)
_INTS = ir.VectorType(_I32, 16)
_FLOATS = ir.VectorType(_F32, 16)


TILE_QUERIES, TILE_ROWS = 8, 32
"""Size of a tile of `dot_int8_tile`: its sums take half of the registers of AVX-512."""


def has_byte_products() -> bool:
    """Whether numba compiles for a processor with AVX-512 VNNI."""
    return not config.CPU_NAME and bool(binding.get_host_cpu_features().get("avx512vnni"))


def _declare(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: list[ir.Type]) -> Any:
    kind = ir.FunctionType(result, arguments)
    return cgutils.get_or_insert_function(builder.module, kind, name)


def _load(builder: ir.IRBuilder, address: ir.Value, vector: ir.VectorType) -> ir.Value:
    line = builder.load(builder.inttoptr(address, vector.as_pointer()))
    line.align = 16
    return line


def _constant(vector: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(vector, [value] * vector.count)


def _half_sum(builder: ir.IRBuilder, vector: ir.Value, add: Callable[..., ir.Value]) -> ir.Value:
    """Add the upper half of a vector to its lower half."""
    half = vector.type.count // 2
    index = ir.VectorType(_I32, half)
    low = builder.shuffle_vector(vector, vector, ir.Constant(index, list(range(half))))
    high = builder.shuffle_vector(vector, vector, ir.Constant(index, list(range(half, 2 * half))))
    return add(low, high)


def _sum(builder: ir.IRBuilder, vector: ir.Value, add: Callable[..., ir.Value]) -> ir.Value:
    while vector.type.count > 1:
        vector = _half_sum(builder, vector, add)
    return builder.extract_element(vector, _I32(0))


def _multiply_bytes(
    builder: ir.IRBuilder, total: ir.Value, unsigned: ir.Value, signed: ir.Value
) -> ir.Value:
    """Add the products of 64 unsigned and 64 signed bytes to 16 sums."""
    if has_byte_products():
        multiply = _declare(builder, "llvm.x86.avx512.vpdpbusd.512", _INTS, [_INTS, _BYTES, _BYTES])
        return builder.call(multiply, [total, unsigned, signed])
    wide = ir.VectorType(_I32, 64)
    products = builder.mul(builder.zext(unsigned, wide), builder.sext(signed, wide))
    for _ in range(2):
        products = _half_sum(builder, products, builder.add)
    return builder.add(total, products)


def _accumulate(
    builder: ir.IRBuilder,
    count: ir.Value,
    start: list[ir.Constant],
    step: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
) -> list[ir.Value]:
    """Loop over lines 0..count-1; `step` maps the line number and the sums to new sums."""
    sums = [cgutils.alloca_once_value(builder, value) for value in start]
    with cgutils.for_range(builder, count) as loop:
        updated = step(loop.index, [builder.load(one) for one in sums])
        for place, new in zip(sums, updated, strict=True):
            builder.store(new, place)
    return [builder.load(one) for one in sums]


@intrinsic  # type: ignore[untyped-decorator]
def dot_int4(typing: Any, codes: Any, query: Any, lines: Any) -> Any:
    """Return the inner product of a row of 4-bit codes and a query of 8-bit integers.

    `dot_int4(codes, query, lines)` takes the addresses of `lines` lines of codes and of
    `2 * lines` lines of signed bytes, and returns the sum as an int32.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        code, query, lines = arguments
        zero = _constant(_INTS, 0)

        def step(index: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            offset = builder.shl(index, _I64(6))
            packed = _load(builder, builder.add(code, offset), _BYTES)
            place = builder.add(query, builder.shl(offset, _I64(1)))
            low = builder.and_(packed, _constant(_BYTES, 15))
            high = builder.lshr(packed, _constant(_BYTES, 4))
            second = _load(builder, builder.add(place, _I64(64)), _BYTES)
            return [
                _multiply_bytes(builder, sums[0], low, _load(builder, place, _BYTES)),
                _multiply_bytes(builder, sums[1], high, second),
            ]

        sums = _accumulate(builder, lines, [zero, zero], step)
        return _sum(builder, builder.add(*sums), builder.add)

    return types.int32(types.int64, types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def dot_int8(typing: Any, codes: Any, query: Any, lines: Any) -> Any:
    """Return the inner product of unsigned 8-bit codes and a signed 8-bit query as an int32."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        code, query, lines = arguments

        def step(index: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            offset = builder.shl(index, _I64(6))
            left = _load(builder, builder.add(code, offset), _BYTES)
            right = _load(builder, builder.add(query, offset), _BYTES)
            return [_multiply_bytes(builder, sums[0], left, right)]

        sums = _accumulate(builder, lines, [_constant(_INTS, 0)], step)
        return _sum(builder, sums[0], builder.add)

    return types.int32(types.int64, types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def dot_int8_tile(
    typing: Any, codes: Any, queries: Any, quads: Any, least: Any, sums: Any, over: Any
) -> Any:
    """Write the inner products of 32 rows of unsigned bytes and 8 of signed ones, as int32.

    `dot_int8_tile(codes, queries, quads, least, sums, over)` takes the addresses of two groups of
    16 rows, each `quads` lines that hold four dimensions of the 16 rows, one row after another; of
    8 queries of `4 * quads` bytes; of 8 int32; and of the results: 8 × 32 int32, and 8 uint32
    whose bit `i` says that the product with row `i` is greater than the query's `least`. The
    product of a row and a query needs no sum over a register, and nothing is read twice.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        codes, queries, quads, least, results, over = arguments
        groups = TILE_ROWS // _INTS.count
        second = builder.add(codes, builder.shl(quads, _I64(6)))
        width = builder.shl(quads, _I64(2))

        def splat(address: ir.Value) -> ir.Value:
            one = builder.load(builder.inttoptr(address, _I32.as_pointer()))
            vector = builder.insert_element(ir.Constant(_INTS, ir.Undefined), one, _I32(0))
            return builder.shuffle_vector(vector, vector, _constant(_INTS, 0))

        def arranged(line: ir.Value) -> ir.Value:
            # Without VNNI, `_multiply_bytes` adds products that are 16 places apart, not adjacent.
            order = [4 * row + one for one in range(4) for row in range(16)]
            places = ir.Constant(ir.VectorType(_I32, 64), order)
            return line if has_byte_products() else builder.shuffle_vector(line, line, places)

        def step(index: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            line, quad = builder.shl(index, _I64(6)), builder.shl(index, _I64(2))
            places = [builder.add(one, line) for one in (codes, second)]
            rows = [arranged(_load(builder, one, _BYTES)) for one in places]
            updated = []
            for query in range(TILE_QUERIES):
                place = builder.add(queries, builder.mul(width, _I64(query)))
                values = arranged(builder.bitcast(splat(builder.add(place, quad)), _BYTES))
                for group, row in enumerate(rows):
                    total = sums[query * groups + group]
                    updated.append(_multiply_bytes(builder, total, row, values))
            return updated

        zero = _constant(_INTS, 0)
        found = _accumulate(builder, quads, [zero] * (TILE_QUERIES * groups), step)
        for query in range(TILE_QUERIES):
            limit = splat(builder.add(least, _I64(4 * query)))
            bits = _I32(0)
            for group in range(groups):
                total = found[query * groups + group]
                offset = _I64((query * groups + group) * 64)
                place = builder.inttoptr(builder.add(results, offset), _INTS.as_pointer())
                builder.store(total, place).align = 4
                larger = builder.bitcast(builder.icmp_signed(">", total, limit), ir.IntType(16))
                shifted = builder.shl(builder.zext(larger, _I32), _I32(16 * group))
                bits = builder.or_(bits, shifted)
            place = builder.inttoptr(builder.add(over, _I64(4 * query)), _I32.as_pointer())
            builder.store(bits, place)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 6), generate


def _fuse(builder: ir.IRBuilder, left: ir.Value, right: ir.Value, total: ir.Value) -> ir.Value:
    multiply = _declare(builder, "llvm.fma.v16f32", _FLOATS, [_FLOATS] * 3)
    return builder.call(multiply, [left, right, total])


def _float_loop(
    builder: ir.IRBuilder,
    arguments: Any,
    term: Callable[[ir.Value, ir.Value, ir.Value], ir.Value],
) -> ir.Value:
    """Sum a term over two rows of float32, with two accumulators for alternating lines."""
    left, right, lines = arguments

    def one(index: ir.Value, total: ir.Value) -> ir.Value:
        offset = builder.shl(index, _I64(6))
        a = _load(builder, builder.add(left, offset), _FLOATS)
        return term(a, _load(builder, builder.add(right, offset), _FLOATS), total)

    def step(index: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        even = builder.shl(index, _I64(1))
        return [one(even, sums[0]), one(builder.add(even, _I64(1)), sums[1])]

    zero = _constant(_FLOATS, 0.0)
    sums = _accumulate(builder, builder.lshr(lines, _I64(1)), [zero, zero], step)
    last = cgutils.alloca_once_value(builder, builder.fadd(*sums))
    with builder.if_then(builder.trunc(lines, ir.IntType(1))):  # an odd number of lines
        builder.store(one(builder.sub(lines, _I64(1)), builder.load(last)), last)
    return _sum(builder, builder.load(last), builder.fadd)


@intrinsic  # type: ignore[untyped-decorator]
def dot(typing: Any, left: Any, right: Any, lines: Any) -> Any:
    """Return the inner product of two rows of `16 * lines` float32, given by address."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return _float_loop(builder, arguments, lambda a, b, total: _fuse(builder, a, b, total))

    return types.float32(types.int64, types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def squared_distance(typing: Any, left: Any, right: Any, lines: Any) -> Any:
    """Return the squared Euclidean distance between two rows of `16 * lines` float32."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        def term(a: ir.Value, b: ir.Value, total: ir.Value) -> ir.Value:
            difference = builder.fsub(a, b)
            return _fuse(builder, difference, difference, total)

        return _float_loop(builder, arguments, term)

    return types.float32(types.int64, types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typing: Any, address: Any) -> Any:
    """Prefetch the cache line at an address."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pointer = _I8.as_pointer()
        fetch = _declare(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, _I32, _I32, _I32])
        place = builder.inttoptr(arguments[0], pointer)
        builder.call(fetch, [place, _I32(0), _I32(3), _I32(1)])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def popcount(typing: Any, word: Any) -> Any:
    """Count the set bits of a 64-bit word."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate
