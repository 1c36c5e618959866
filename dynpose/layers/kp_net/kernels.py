"""The KP-Net operator's Triton kernels. :mod:`.fused` launches them.

A program processes one instance and a range of the cells of its image's map: it keeps the instance's weights and
iterates over the range tile by tile. Hidden values and logits never leave the chip. Only the results of a range are
written: for each keypoint the highest logit, its cell and the sum of exponentials, or the gradient of the parameters.

Axes of the blocks: [cells of a tile, channels]. Channels are padded with zero weights to a power of two of at least 16,
the smallest dimension of a matrix-unit product; cells beyond the map are masked. With many keypoints, each program
processes K_BLOCK of them, and the hidden layers are computed once per block of keypoints.

Letters: N instances, B images, C feature channels, K keypoints, P parameters of one KP-Net.

Arguments that all kernels share:
    features: (B, cells, C), contiguous; for TF32 products, float32 features are rounded to TF32 beforehand.
    params: (N, P) float32; packed as described in :class:`~dynpose.layers.kp_net.KPNetSpec`.
    image_index: (N,) int64; locations: (N, 2) float32; coord_scale: (N,) float32.
    C, WIDTH, DEPTH, K, P, COORDS_FIRST, COORDS_SIGN: the spec.
    C_PAD, WIDTH_PAD, K_BLOCK: block dimensions; BLOCK: cells of a tile.
    PRECISION: precision of the products, see :func:`~dynpose.layers.triton_support.dot_precision`.
"""

import inspect

import triton
import triton.language as tl

from dynpose.layers.triton_support import interprets

# Below every logit, but finite: the difference of two such values must not be NaN.
_LOWEST = tl.constexpr(-3.0e38)
# exp2 is a single instruction; exp also handles results below the smallest normal number.
_LOG2E = tl.constexpr(1.4426950408889634)
_INTERPRETS = tl.constexpr(interprets())


# Sizes that must not trigger a recompilation: a new image size would stall the job for seconds.
_SIZES = (
    "num_instances",
    "num_cells",
    "num_heatmaps",
    "map_width",
    "stride",
    "splits",
    "cells_bucket",
    "instances_bucket",
)
# Tensors that can be views at any address. Loads of features benefit from alignment.
_UNALIGNED = (
    "source",
    "params",
    "image_index",
    "locations",
    "coord_scale",
    "targets",
    "log_sums",
    "grad",
    "order",
    "starts",
)


def _kernel(function):
    arguments = [name for name in inspect.signature(function).parameters if name in (*_SIZES, *_UNALIGNED)]
    return triton.jit(function, do_not_specialize=arguments, do_not_specialize_on_alignment=arguments)


# --- arithmetic ---


@triton.jit
def _factor(x, PRECISION: tl.constexpr, POSITIVE: tl.constexpr = False):
    """Convert x to a factor of :func:`_product`, rounded once for all products. POSITIVE: no number is negative.

    For TF32, half a unit in the last place is added and the matrix units truncate the rest: together, this rounds to
    nearest. (Truncation alone has twice the error, and is biased.) The addition must not overflow NaN into a number;
    GPUs encode NaN as 0x7FFFFFFF.
    """
    x = x.to(tl.bfloat16 if PRECISION == "bf16" else tl.float32)
    if PRECISION == "tf32":
        if POSITIVE:
            bits = tl.minimum(x.to(tl.uint32, bitcast=True) + 0x1000, 0x7FFFFFFF)
        else:
            bits = tl.minimum(x.to(tl.int32, bitcast=True), 0x7FFFEFFF) + 0x1000
        x = bits.to(tl.float32, bitcast=True)
        if _INTERPRETS:
            x = _cut_to_tf32(x)
    return x


@triton.jit
def _cut_to_tf32(x):
    bits = x.to(tl.int32, bitcast=True)
    # a NaN must keep a bit that distinguishes it from infinity
    return tl.where(x == x, bits & -0x2000, bits).to(tl.float32, bitcast=True)


@triton.jit
def _product(a, b, PRECISION: tl.constexpr, A_IS_RESULT: tl.constexpr):
    """a @ b of two factors, with float32 sums. "ieee" runs without the matrix units, in float32 throughout.

    If ``a`` is the result of another product, the columns of ``a`` and the rows of ``b`` are reordered. Of every eight
    columns, a thread holds the adjacent results (0, 1) of a product but needs (0, 4) as TF32 factors. In the order
    0 2 4 6 1 3 5 7 they coincide, and no value has to move between threads.
    """
    if PRECISION == "bf16":
        return tl.dot(a, b)
    if PRECISION == "ieee":
        return tl.dot(a, b, input_precision="ieee")
    if A_IS_RESULT:
        a, b = _reorder_columns(a), tl.trans(_reorder_columns(tl.trans(b)))
    if PRECISION == "tf32":
        return tl.dot(a, b, input_precision="tf32")
    # "tf32x3". The remainder of the rounding is also TF32, except for its last bits; the product of two is dropped.
    a_high, b_high = _cut_to_tf32(_factor(a, "tf32")), _cut_to_tf32(_factor(b, "tf32"))
    product = tl.dot(a_high, b_high, input_precision="tf32")
    product = tl.dot(a_high, _factor(b - b_high, "tf32"), product, input_precision="tf32")
    return tl.dot(_factor(a - a_high, "tf32"), b_high, product, input_precision="tf32")


@triton.jit
def _reorder_columns(x):
    pairs = tl.reshape(x, [x.shape[0], x.shape[1] // 8, 4, 2])
    return tl.reshape(tl.permute(pairs, [0, 1, 3, 2]), [x.shape[0], x.shape[1]])


@triton.jit
def _relu(x):
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


# --- features ---


@_kernel
def round_kernel(
    source: tl.tensor, features: tl.tensor, num_cells: tl.tensor,
    C: tl.constexpr, C_PAD: tl.constexpr, CHANNELS_LAST: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Round features to TF32 factors, once for all instances. The grid is (tiles, B).

    ``source`` is (B, cells, C) if CHANNELS_LAST, else (B, C, cells); the output ``features`` is (B, cells, C).
    """
    image = tl.program_id(1).to(tl.int64)
    cells = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))[:, None]
    channels = tl.arange(0, C_PAD)[None, :]
    mask = (cells < num_cells) & (channels < C)
    source += image * num_cells * C
    offsets = cells * C + channels
    x = tl.load(source + (offsets if CHANNELS_LAST else channels * num_cells + cells), mask=mask, other=0.0)
    tl.store(features + image * num_cells * C + offsets, _cut_to_tf32(_factor(x, "tf32")), mask=mask)


# --- the network ---


@triton.jit
def _load_matrix(pointer, rows, columns, row_stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    return tl.load(pointer + row * row_stride + column, mask=(row < rows) & (column < columns), other=0.0)


@triton.jit
def _load_vector(pointer, size, step, SIZE: tl.constexpr):
    index = tl.arange(0, SIZE)
    return tl.load(pointer + index * step, mask=index < size, other=0.0)


@triton.jit
def _load_net(
    params, k_start,
    C: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, K: tl.constexpr, COORDS_FIRST: tl.constexpr,
    C_PAD: tl.constexpr, WIDTH_PAD: tl.constexpr, K_BLOCK: tl.constexpr,
):  # fmt: skip
    """Load the weights of one instance, whose parameters begin at ``params``, for the keypoints from k_start.

    Returns:
        For the first layer, the weights of the features [out, C_PAD], of x and of y [out], and the bias [out]; then
        weight [out, in] and bias [out] of the second, third and last layer. Layers that a KP-Net of this depth lacks
        repeat an earlier layer.
    """
    FIRST_OUT: tl.constexpr = K if DEPTH == 1 else WIDTH
    FIRST_PAD: tl.constexpr = K_BLOCK if DEPTH == 1 else WIDTH_PAD
    first, outputs = params, FIRST_OUT
    first_bias = params + FIRST_OUT * (C + 2)
    if DEPTH == 1:
        first += k_start * (C + 2)
        first_bias += k_start
        outputs -= k_start
    w_1 = _load_matrix(first + (2 if COORDS_FIRST else 0), outputs, C, C + 2, FIRST_PAD, C_PAD)
    w_x = _load_vector(first + (0 if COORDS_FIRST else C), outputs, C + 2, FIRST_PAD)
    w_y = _load_vector(first + (1 if COORDS_FIRST else C + 1), outputs, C + 2, FIRST_PAD)
    b_1 = _load_vector(first_bias, outputs, 1, FIRST_PAD)
    w_2, b_2 = w_1, b_1
    w_3, b_3 = w_1, b_1
    w_last, b_last = w_1, b_1
    if DEPTH > 1:
        layer = params + FIRST_OUT * (C + 3)
        if DEPTH > 2:
            w_2 = _load_matrix(layer, WIDTH, WIDTH, WIDTH, WIDTH_PAD, WIDTH_PAD)
            b_2 = _load_vector(layer + WIDTH * WIDTH, WIDTH, 1, WIDTH_PAD)
            layer += WIDTH * WIDTH + WIDTH
        if DEPTH > 3:
            w_3 = _load_matrix(layer, WIDTH, WIDTH, WIDTH, WIDTH_PAD, WIDTH_PAD)
            b_3 = _load_vector(layer + WIDTH * WIDTH, WIDTH, 1, WIDTH_PAD)
            layer += WIDTH * WIDTH + WIDTH
        w_last = _load_matrix(layer + k_start * WIDTH, K - k_start, WIDTH, WIDTH, K_BLOCK, WIDTH_PAD)
        b_last = _load_vector(layer + K * WIDTH + k_start, K - k_start, 1, K_BLOCK)
    return w_1, w_x, w_y, b_1, w_2, b_2, w_3, b_3, w_last, b_last


@triton.jit
def _tile(cells, C: tl.constexpr, C_PAD: tl.constexpr):
    """Offsets of the cells' channels in the features of an image, and the mask of channels that are not padding."""
    channels = tl.arange(0, C_PAD)
    return (cells * C)[:, None] + channels[None, :], (channels < C)[None, :]


@triton.jit
def _load_tile(
    features, cells, num_cells,
    C: tl.constexpr, C_PAD: tl.constexpr, PRECISION: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Load the features of cells as a factor: [BLOCK, C_PAD]. Cells beyond the map are allowed only if MASKED."""
    offsets, is_channel = _tile(cells, C, C_PAD)
    if MASKED:
        x = tl.load(features + offsets, mask=(cells < num_cells)[:, None] & is_channel, other=0.0)
    elif C < C_PAD:
        x = tl.load(features + offsets, mask=is_channel, other=0.0)
    else:
        x = tl.load(features + offsets)
    if PRECISION != "bf16":
        x = x.to(tl.float32)
    return x


@triton.jit
def _load_view(locations, coord_scale, instance, map_width, stride, COORDS_SIGN: tl.constexpr):
    """Load the values that :func:`_relative` computes an instance's relative coordinates from."""
    factor = COORDS_SIGN / tl.load(coord_scale + instance)
    x, y = tl.load(locations + 2 * instance), tl.load(locations + 2 * instance + 1)
    return map_width, tl.div_rn(1.0, map_width.to(tl.float32)), stride, x, y, factor


@triton.jit
def _relative(cells, view):
    """Relative coordinates of cells, [BLOCK] each."""
    map_width, rows_of_a_cell, stride, x, y, factor = view
    # Half a cell avoids rounding at integers: exact for maps of up to MAX_CELLS, and cheaper than a division.
    v = ((cells.to(tl.float32) + 0.5) * rows_of_a_cell).to(tl.int32)
    u = cells - v * map_width
    half = stride // 2
    return ((u * stride + half).to(tl.float32) - x) * factor, ((v * stride + half).to(tl.float32) - y) * factor


@triton.jit
def _run_net(x, relative_x, relative_y, net, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """Return the values after ReLU of the first, second and last hidden layer, and the logits [BLOCK, K_BLOCK].

    ``x`` is the factor of the features. In a shallow KP-Net some of the three coincide; at depth 1 they are
    meaningless.
    """
    w_1, w_x, w_y, b_1, w_2, b_2, w_3, b_3, w_last, b_last = net
    # The coordinates stay out of the product: they are float32 at any product precision.
    constant = b_1[None, :] + relative_y[:, None] * w_y[None, :] + relative_x[:, None] * w_x[None, :]
    logits = _product(x, _factor(tl.trans(w_1), PRECISION), PRECISION, A_IS_RESULT=False) + constant
    h_1 = _relu(logits)
    h_2, h_last = h_1, h_1
    if DEPTH > 2:
        h_2 = _relu(_layer(h_1, w_2, b_2, PRECISION))
        h_last = h_2
    if DEPTH > 3:
        h_last = _relu(_layer(h_2, w_3, b_3, PRECISION))
    if DEPTH > 1:
        logits = _layer(h_last, w_last, b_last, PRECISION)
    return h_1, h_2, h_last, logits


@triton.jit
def _layer(h, weight, bias, PRECISION: tl.constexpr):
    h, weight = _factor(h, PRECISION, POSITIVE=True), _factor(tl.trans(weight), PRECISION)
    return _product(h, weight, PRECISION, A_IS_RESULT=True) + bias[None, :]


@triton.jit
def _range(split, splits, num_cells, BLOCK: tl.constexpr):
    """First and last cell (exclusive) of one of the map's ranges, each a whole number of tiles."""
    tiles = tl.cdiv(num_cells, BLOCK)
    tiles_of_range = tl.cdiv(tiles, splits)
    first = split * tiles_of_range * BLOCK
    return first, tl.maximum(first, tl.minimum(first + tiles_of_range * BLOCK, num_cells))


# --- forward ---


@triton.jit
def _visit(
    rows, start, features, num_cells, view, net, keypoint, target, heatmaps,
    C: tl.constexpr, DEPTH: tl.constexpr, K: tl.constexpr, C_PAD: tl.constexpr,
    PRECISION: tl.constexpr, MODE: tl.constexpr, BLOCK: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Run a KP-Net on one tile and update the running (max, sum, cell, target) of each row.

    MASKED is for the tile that extends beyond the map. ``features`` and ``heatmaps`` are those of the instance.
    """
    row_max, row_sum, row_cell, row_target = rows
    cells = start + tl.arange(0, BLOCK)
    x = _load_tile(features, cells, num_cells, C, C_PAD, PRECISION, MASKED)
    relative_x, relative_y = _relative(cells, view)
    _, _, _, logits = _run_net(x, relative_x, relative_y, net, DEPTH, PRECISION)
    is_cell = (cells < num_cells)[:, None]
    if MODE == "heatmaps":
        mask = (keypoint < K)[None, :] & is_cell if MASKED else (keypoint < K)[None, :]
        tl.store(heatmaps + keypoint.to(tl.int64)[None, :] * num_cells + cells[:, None], logits, mask=mask)
        return rows
    difference = logits - row_max
    higher = difference > 0
    if MASKED:
        higher &= is_cell
    # The cell first, so that the comparison need not be kept during the exponential.
    if MODE == "peaks":
        row_cell = tl.where(higher, cells[:, None], row_cell)
    else:
        row_target = tl.where(cells[:, None] == target[None, :], logits, row_target)
    row_max = tl.where(higher, logits, row_max)
    # One exponential updates the sum, whichever of the two is larger.
    small = tl.exp2(tl.abs(difference) * -_LOG2E)
    if MASKED:
        small = tl.where(is_cell, small, 0.0)
    row_sum = tl.where(higher, row_sum * small + 1.0, row_sum + small)
    return row_max, row_sum, row_cell, row_target


@_kernel
def forward_kernel(
    features: tl.tensor, params: tl.tensor, image_index: tl.tensor, locations: tl.tensor, coord_scale: tl.tensor,
    targets: "tl.tensor | None",
    part_max: "tl.tensor | None", part_sum: "tl.tensor | None", part_cell: "tl.tensor | None",
    part_target: "tl.tensor | None", heatmaps: "tl.tensor | None",
    num_instances: tl.tensor, num_cells: tl.tensor, map_width: tl.tensor, stride: tl.tensor, splits: tl.tensor,
    cells_bucket: tl.tensor, instances_bucket: tl.tensor,
    C: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, K: tl.constexpr, P: tl.constexpr,
    COORDS_FIRST: tl.constexpr, COORDS_SIGN: tl.constexpr,
    C_PAD: tl.constexpr, WIDTH_PAD: tl.constexpr, K_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, MODE: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Run the KP-Nets. The grid is (N * blocks of keypoints, splits).

    MODE "peaks" writes for each range and heatmap the highest logit, its cell and the sum of exp(logit - highest) to
    part_max, part_cell and part_sum (splits, N, K). "cross_entropy" writes the logit at the target cell (0 if it is
    outside the range) to part_target instead of the cell. "heatmaps" writes all logits to heatmaps (N, K, cells).
    """
    K_BLOCKS: tl.constexpr = (K + K_BLOCK - 1) // K_BLOCK
    instance = (tl.program_id(0) // K_BLOCKS).to(tl.int64)
    k_start = (tl.program_id(0) % K_BLOCKS) * K_BLOCK
    split = tl.program_id(1)
    first, last = _range(split, splits, num_cells, BLOCK)

    features += tl.load(image_index + instance) * num_cells * C
    view = _load_view(locations, coord_scale, instance, map_width, stride, COORDS_SIGN)
    net = _load_net(
        params + instance * P, k_start, C, WIDTH, DEPTH, K, COORDS_FIRST, C_PAD, WIDTH_PAD, K_BLOCK
    )  # fmt: skip
    keypoint = k_start + tl.arange(0, K_BLOCK)
    is_keypoint = keypoint < K
    target = keypoint
    if MODE == "cross_entropy":
        target = tl.load(targets + instance * K + keypoint, mask=is_keypoint, other=-1).to(tl.int32)
    if MODE == "heatmaps":
        heatmaps += instance * K * num_cells

    # Each row of a tile keeps a separate maximum and sum; the rows are merged once, at the end.
    rows = (
        tl.full([BLOCK, K_BLOCK], _LOWEST, tl.float32),
        tl.zeros([BLOCK, K_BLOCK], tl.float32),
        tl.zeros([BLOCK, K_BLOCK], tl.int32) + first,
        tl.zeros([BLOCK, K_BLOCK], tl.float32),
    )
    # Only the last tile of a map needs masks, so it is processed separately.
    whole = first + (last - first) // BLOCK * BLOCK
    for start in range(first, whole, BLOCK):
        rows = _visit(
            rows, start, features, num_cells, view, net, keypoint, target, heatmaps,
            C, DEPTH, K, C_PAD, PRECISION, MODE, BLOCK, MASKED=False,
        )  # fmt: skip
    if whole < last:
        rows = _visit(
            rows, whole, features, num_cells, view, net, keypoint, target, heatmaps,
            C, DEPTH, K, C_PAD, PRECISION, MODE, BLOCK, MASKED=True,
        )  # fmt: skip

    if MODE != "heatmaps":
        row_max, row_sum, row_cell, row_target = rows
        out = (split * num_instances + instance) * K + keypoint
        highest = tl.max(row_max, axis=0)
        tl.store(part_max + out, highest, mask=is_keypoint)
        row_sum *= tl.exp2((row_max - highest[None, :]) * _LOG2E)
        tl.store(part_sum + out, tl.sum(row_sum, axis=0), mask=is_keypoint)
        if MODE == "peaks":
            # the lowest of equal values
            cell = tl.min(tl.where(row_max == highest[None, :], row_cell, 2147483647), axis=0)
            # A row with no cells, or only NaN, must not produce an index outside the map.
            tl.store(part_cell + out, tl.minimum(cell, num_cells - 1), mask=is_keypoint)
        else:
            # the only row that contains the target, if this range has it
            tl.store(part_target + out, tl.sum(row_target, axis=0), mask=is_keypoint)


@_kernel
def merge_kernel(
    part_max: tl.tensor, part_sum: tl.tensor, part_cell: "tl.tensor | None", part_target: "tl.tensor | None",
    targets: "tl.tensor | None",
    values: "tl.tensor | None", indices: "tl.tensor | None", confidence: "tl.tensor | None",
    losses: "tl.tensor | None", log_sums: "tl.tensor | None",
    num_heatmaps: tl.tensor, splits: tl.tensor,
    MODE: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Merge the ranges of :func:`forward_kernel`. The grid is (num_heatmaps = N * K / BLOCK,).

    MODE "peaks" writes values, indices (int64) and confidence, "cross_entropy" losses and log_sums; (N, K) each.
    """
    heatmap = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = heatmap < num_heatmaps
    highest = tl.full([BLOCK], _LOWEST, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    cell = tl.zeros([BLOCK], tl.int32)
    at_target = tl.zeros([BLOCK], tl.float32)
    for split in range(splits):
        part = num_heatmaps.to(tl.int64) * split + heatmap
        part_highest = tl.load(part_max + part, mask=mask, other=0.0)
        # Ranges come in order and only a higher value replaces another, so the lowest of equal cells is kept.
        higher = part_highest > highest
        new_highest = tl.where(higher, part_highest, highest)
        part_total = tl.load(part_sum + part, mask=mask, other=0.0)
        total = total * tl.exp(highest - new_highest) + part_total * tl.exp(part_highest - new_highest)
        highest = new_highest
        if MODE == "peaks":
            cell = tl.where(higher, tl.load(part_cell + part, mask=mask, other=0), cell)
        else:
            at_target += tl.load(part_target + part, mask=mask, other=0.0)
    if MODE == "peaks":
        tl.store(values + heatmap, highest, mask=mask)
        tl.store(indices + heatmap, cell.to(tl.int64), mask=mask)
        tl.store(confidence + heatmap, 1.0 / total, mask=mask)
    else:
        log_sum = highest + tl.log(total)
        is_target = tl.load(targets + heatmap, mask=mask, other=-1) >= 0
        tl.store(log_sums + heatmap, log_sum, mask=mask)
        tl.store(losses + heatmap, tl.where(is_target, log_sum - at_target, 0.0), mask=mask)


# --- backward ---


@triton.jit
def _logit_gradient(
    logits, cells, num_cells, heatmap, is_keypoint, targets, log_sums, grad, MODE: tl.constexpr
):  # fmt: skip
    """Gradient of the logits of a tile, [BLOCK, K_BLOCK]; ``heatmap`` [K_BLOCK] is n * K + k.

    ``grad`` is the gradient of the losses (N, K) in MODE "cross_entropy", of the logits (N, K, cells) in "heatmaps".
    """
    is_cell = (cells < num_cells)[:, None]
    if MODE == "heatmaps":
        rows = heatmap[None, :] * num_cells + cells[:, None]
        d = tl.load(grad + rows, mask=is_cell & is_keypoint[None, :], other=0.0)
    else:
        target = tl.load(targets + heatmap, mask=is_keypoint, other=-1).to(tl.int32)
        log_sum = tl.load(log_sums + heatmap, mask=is_keypoint, other=0.0)
        weight = tl.load(grad + heatmap, mask=target >= 0, other=0.0)
        probability = tl.exp2((logits - log_sum[None, :]) * _LOG2E)
        difference = probability - tl.where(cells[:, None] == target[None, :], 1.0, 0.0)
        d = tl.where(is_cell & (target >= 0)[None, :], difference * weight[None, :], 0.0)
    return d


@triton.jit
def _add(pointer, block, rows, columns, row_stride, step, ATOMIC: tl.constexpr):
    """Add (ATOMIC) or store a block's first rows and columns at pointer[row * row_stride + column * step]."""
    row, column = tl.arange(0, block.shape[0])[:, None], tl.arange(0, block.shape[1])[None, :]
    where = pointer + row * row_stride + column * step
    mask = (row < rows) & (column < columns)
    if ATOMIC:
        tl.atomic_add(where, block, mask=mask, sem="relaxed")
    else:
        tl.store(where, block, mask=mask)


@triton.jit
def _column(block, index):
    """Extract one column of a block, as a block of one column."""
    chosen = tl.arange(0, block.shape[1])[None, :] == index
    return tl.sum(tl.where(chosen, block, 0.0), axis=1, keep_dims=True)


@triton.jit
def _sum_of_cells(d, x, PRECISION: tl.constexpr):
    """A tile's gradient of a weight [out, in], from the layer's output gradient and its inputs, both factors."""
    return _product(tl.trans(d), x, PRECISION, A_IS_RESULT=False)


@triton.jit
def _backward_layer(d, weight, h, PRECISION: tl.constexpr):
    """Backpropagate a factor through a layer and the ReLU before it, whose result is ``h``, to another factor."""
    d = _product(d, _factor(weight, PRECISION), PRECISION, A_IS_RESULT=True)
    return _factor(tl.where(h > 0, d, 0.0), PRECISION)


@_kernel
def backward_kernel(
    features: tl.tensor, params: tl.tensor, image_index: tl.tensor, locations: tl.tensor, coord_scale: tl.tensor,
    targets: "tl.tensor | None", log_sums: "tl.tensor | None", grad: tl.tensor,
    grad_features: tl.tensor, grad_params: tl.tensor,
    num_instances: tl.tensor, num_cells: tl.tensor, map_width: tl.tensor, stride: tl.tensor, splits: tl.tensor,
    cells_bucket: tl.tensor, instances_bucket: tl.tensor,
    C: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, K: tl.constexpr, P: tl.constexpr,
    COORDS_FIRST: tl.constexpr, COORDS_SIGN: tl.constexpr,
    C_PAD: tl.constexpr, WIDTH_PAD: tl.constexpr, K_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, MODE: tl.constexpr,
    WITH_FEATURES: tl.constexpr, WITH_PARAMS: tl.constexpr, ATOMIC: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Gradients, with one instance per program. The grid is (N * blocks of keypoints, splits).

    WITH_FEATURES atomically adds the gradient of the features to grad_features (B, cells, C) float32. WITH_PARAMS
    atomically adds that of the parameters to grad_params (N, P) float32, or, without ATOMIC, writes the part of each
    range and block of keypoints to the zero-initialised grad_params (splits, blocks of keypoints, N, P).
    MODE and ``grad``: see :func:`_logit_gradient`.
    """
    K_BLOCKS: tl.constexpr = (K + K_BLOCK - 1) // K_BLOCK
    FIRST_OUT: tl.constexpr = K if DEPTH == 1 else WIDTH
    FIRST_PAD: tl.constexpr = K_BLOCK if DEPTH == 1 else WIDTH_PAD
    instance = (tl.program_id(0) // K_BLOCKS).to(tl.int64)
    k_block = tl.program_id(0) % K_BLOCKS
    k_start = k_block * K_BLOCK
    split = tl.program_id(1)
    first, last = _range(split, splits, num_cells, BLOCK)

    image = tl.load(image_index + instance)
    features += image * num_cells * C
    if WITH_FEATURES:
        grad_features += image * num_cells * C
    view = _load_view(locations, coord_scale, instance, map_width, stride, COORDS_SIGN)
    net = _load_net(
        params + instance * P, k_start, C, WIDTH, DEPTH, K, COORDS_FIRST, C_PAD, WIDTH_PAD, K_BLOCK
    )  # fmt: skip
    w_1, w_2, w_3, w_last = net[0], net[4], net[6], net[8]
    keypoint = k_start + tl.arange(0, K_BLOCK)
    heatmap = instance * K + keypoint
    ones = _factor(tl.full([BLOCK, 16], 1.0, tl.float32), PRECISION)

    # For each layer, the gradient of its weight, and of its bias in every column; in the first layer, columns 0 and 1
    # hold the gradients of the coordinates' weights.
    g_1 = tl.zeros([FIRST_PAD, C_PAD], tl.float32)
    e_1 = tl.zeros([FIRST_PAD, 16], tl.float32)
    if WITH_PARAMS and DEPTH > 1:
        g_last = tl.zeros([K_BLOCK, WIDTH_PAD], tl.float32)
        e_last = tl.zeros([K_BLOCK, 16], tl.float32)
    if WITH_PARAMS and DEPTH > 2:
        g_2 = tl.zeros([WIDTH_PAD, WIDTH_PAD], tl.float32)
        e_2 = tl.zeros([WIDTH_PAD, 16], tl.float32)
    if WITH_PARAMS and DEPTH > 3:
        g_3 = tl.zeros([WIDTH_PAD, WIDTH_PAD], tl.float32)
        e_3 = tl.zeros([WIDTH_PAD, 16], tl.float32)

    for start in range(first, last, BLOCK):
        cells = start + tl.arange(0, BLOCK)
        x = _load_tile(features, cells, num_cells, C, C_PAD, PRECISION, MASKED=True)
        relative_x, relative_y = _relative(cells, view)
        h_1, h_2, h_last, logits = _run_net(x, relative_x, relative_y, net, DEPTH, PRECISION)
        d = _logit_gradient(logits, cells, num_cells, heatmap, keypoint < K, targets, log_sums, grad, MODE)
        d = _factor(d, PRECISION)
        if DEPTH > 1:
            if WITH_PARAMS:
                g_last += _sum_of_cells(d, _factor(h_last, PRECISION, POSITIVE=True), PRECISION)
                e_last += _sum_of_cells(d, ones, PRECISION)
            d = _backward_layer(d, w_last, h_last, PRECISION)
        if DEPTH > 3:
            if WITH_PARAMS:
                g_3 += _sum_of_cells(d, _factor(h_2, PRECISION, POSITIVE=True), PRECISION)
                e_3 += _sum_of_cells(d, ones, PRECISION)
            d = _backward_layer(d, w_3, h_2, PRECISION)
        if DEPTH > 2:
            if WITH_PARAMS:
                g_2 += _sum_of_cells(d, _factor(h_1, PRECISION, POSITIVE=True), PRECISION)
                e_2 += _sum_of_cells(d, ones, PRECISION)
            d = _backward_layer(d, w_2, h_1, PRECISION)
        if WITH_PARAMS:
            column = tl.arange(0, 16)[None, :]
            beside = tl.where(column == 0, relative_x[:, None], tl.where(column == 1, relative_y[:, None], 0.0))
            beside = tl.where(column == 2, 1.0, beside)
            g_1 += _sum_of_cells(d, x, PRECISION)
            e_1 += _sum_of_cells(d, _factor(beside, PRECISION), PRECISION)
        if WITH_FEATURES:
            offsets, is_channel = _tile(cells, C, C_PAD)
            d = _product(d, _factor(w_1, PRECISION), PRECISION, A_IS_RESULT=True)
            mask = (cells < num_cells)[:, None] & is_channel
            tl.atomic_add(grad_features + offsets, d, mask=mask, sem="relaxed")

    if WITH_PARAMS:
        out = grad_params + instance * P
        if not ATOMIC:
            out += (split * K_BLOCKS + k_block).to(tl.int64) * num_instances * P
        first_out, outputs = out, FIRST_OUT
        first_bias = out + FIRST_OUT * (C + 2)
        if DEPTH == 1:
            first_out += k_start * (C + 2)
            first_bias += k_start
            outputs -= k_start
        _add(first_out + (2 if COORDS_FIRST else 0), g_1, outputs, C, C + 2, 1, ATOMIC)
        _add(first_out + (0 if COORDS_FIRST else C), e_1, outputs, 2, C + 2, 1, ATOMIC)
        _add(first_bias, _column(e_1, 2), outputs, 1, 1, 1, ATOMIC)
        if DEPTH > 1:
            layer = out + FIRST_OUT * (C + 3)
            if DEPTH > 2:
                _add(layer, g_2, WIDTH, WIDTH, WIDTH, 1, ATOMIC)
                _add(layer + WIDTH * WIDTH, _column(e_2, 2), WIDTH, 1, 1, 1, ATOMIC)
                layer += WIDTH * WIDTH + WIDTH
            if DEPTH > 3:
                _add(layer, g_3, WIDTH, WIDTH, WIDTH, 1, ATOMIC)
                _add(layer + WIDTH * WIDTH, _column(e_3, 2), WIDTH, 1, 1, 1, ATOMIC)
                layer += WIDTH * WIDTH + WIDTH
            _add(layer + k_start * WIDTH, g_last, K - k_start, WIDTH, WIDTH, 1, ATOMIC)
            _add(layer + K * WIDTH + k_start, _column(e_last, 2), K - k_start, 1, 1, 1, ATOMIC)


@_kernel
def feature_gradient_kernel(
    features: tl.tensor, params: tl.tensor, locations: tl.tensor, coord_scale: tl.tensor, targets: "tl.tensor | None",
    log_sums: "tl.tensor | None", grad: tl.tensor, order: tl.tensor, starts: tl.tensor,
    grad_features: tl.tensor,
    num_cells: tl.tensor, map_width: tl.tensor, stride: tl.tensor,
    C: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, K: tl.constexpr, P: tl.constexpr,
    COORDS_FIRST: tl.constexpr, COORDS_SIGN: tl.constexpr,
    C_PAD: tl.constexpr, WIDTH_PAD: tl.constexpr, K_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, MODE: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Gradient of the features, with one tile of one image per program. The grid is (tiles, B).

    The program sums over its image's instances, order[starts[b]:starts[b + 1]], always in that order.
    """
    image = tl.program_id(1).to(tl.int64)
    features += image * num_cells * C
    grad_features += image * num_cells * C
    cells = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = _load_tile(features, cells, num_cells, C, C_PAD, PRECISION, MASKED=True)
    total = tl.zeros([BLOCK, C_PAD], tl.float32)
    for position in range(tl.load(starts + image), tl.load(starts + image + 1)):
        instance = tl.load(order + position)
        view = _load_view(locations, coord_scale, instance, map_width, stride, COORDS_SIGN)
        relative_x, relative_y = _relative(cells, view)
        for k_start in range(0, K, K_BLOCK):
            net = _load_net(
                params + instance * P, k_start, C, WIDTH, DEPTH, K, COORDS_FIRST, C_PAD, WIDTH_PAD, K_BLOCK
            )  # fmt: skip
            w_1, w_2, w_3, w_last = net[0], net[4], net[6], net[8]
            h_1, h_2, h_last, logits = _run_net(x, relative_x, relative_y, net, DEPTH, PRECISION)
            keypoint = k_start + tl.arange(0, K_BLOCK)
            d = _logit_gradient(
                logits, cells, num_cells, instance * K + keypoint, keypoint < K, targets, log_sums, grad, MODE
            )  # fmt: skip
            d = _factor(d, PRECISION)
            if DEPTH > 1:
                d = _backward_layer(d, w_last, h_last, PRECISION)
            if DEPTH > 3:
                d = _backward_layer(d, w_3, h_2, PRECISION)
            if DEPTH > 2:
                d = _backward_layer(d, w_2, h_1, PRECISION)
            total += _product(d, _factor(w_1, PRECISION), PRECISION, A_IS_RESULT=True)
    offsets, is_channel = _tile(cells, C, C_PAD)
    tl.store(grad_features + offsets, total, mask=(cells < num_cells)[:, None] & is_channel)
