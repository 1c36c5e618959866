"""Triton kernels of the losses over heatmaps.

Letters: a *row* is the map of one instance and keypoint, numbered n * K + k. A forward program processes one *part* of
a row, BAND rows of cells by COLUMNS columns, and a merge kernel combines the parts of a row, so that few instances
still make many programs. The backward programs need no merging: each gradient is written by one program.

Up-sampling by F with half-pixel centres puts F fine cells per dimension between the centres of two coarse cells, and
repeats the edge beyond the outermost centres. With neighbours clamped to the map, all coarse cells are handled the
same way.

A row's log-sum-exp of +inf marks a row without a loss: its softmax is zero everywhere.
"""

import inspect

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


def _kernel(function):
    """Compile once for all sizes and addresses: a new image size must not trigger a recompilation."""
    arguments = [
        name for name, of in inspect.signature(function).parameters.items() if of.annotation is not tl.constexpr
    ]
    return triton.jit(function, do_not_specialize=arguments, do_not_specialize_on_alignment=arguments)


# --- pieces ---


@triton.jit
def _part(height, width, BAND: tl.constexpr, COLUMNS: tl.constexpr):
    """This program's row, part, the part's first line of cells and its columns (some beyond the width)."""
    tiles = tl.cdiv(width, COLUMNS)
    parts = tiles * tl.cdiv(height, BAND)
    program = tl.program_id(0)
    part = program % parts
    columns = (part % tiles) * COLUMNS + tl.arange(0, COLUMNS)
    return (program // parts).to(tl.int64), part, (part // tiles) * BAND, columns


@triton.jit
def _three(logits, line, left, here, right, width, shift):
    """Load the logits of a line at three columns each, minus ``shift``, as exponents of 2."""
    line_logits = logits + line * width
    a = (tl.load(line_logits + left).to(tl.float32) - shift) * LOG2E
    b = (tl.load(line_logits + here).to(tl.float32) - shift) * LOG2E
    c = (tl.load(line_logits + right).to(tl.float32) - shift) * LOG2E
    return a, b, c


@triton.jit
def _fine(before, here, after, PHASE: tl.constexpr, FACTOR: tl.constexpr):
    """Value of fine cell PHASE of a coarse cell, interpolated with one of its neighbours in one dimension."""
    towards: tl.constexpr = (2 * PHASE + 1 - FACTOR) / (2 * FACTOR)
    if towards < 0:
        return here + (before - here) * -towards
    else:
        return here + (after - here) * towards


@triton.jit
def _tap(fine, size, FACTOR: tl.constexpr):
    """The two coarse cells around a fine cell, and the weight of the second."""
    position = fine + (FACTOR - FACTOR // 2)
    after = position // FACTOR
    weight = (2 * (position % FACTOR) + (1 - FACTOR % 2)).to(tl.float32) / (2 * FACTOR)
    # A target beyond the map, which is not checked on CUDA, must not cause an out-of-bounds read.
    return tl.minimum(tl.maximum(after - 1, 0), size - 1), tl.minimum(after, size - 1), weight


@triton.jit
def _taps(target, height, width, FACTOR: tl.constexpr):
    """:func:`_tap` for the line and the column of a flat fine index."""
    fine_width = width * FACTOR
    upper, lower, down = _tap((target // fine_width).to(tl.int32), height, FACTOR)
    left, right, across = _tap((target % fine_width).to(tl.int32), width, FACTOR)
    return upper, lower, down, left, right, across


@triton.jit
def _merge_lse(partial, parts, BLOCK: tl.constexpr):
    """Log-sum-exp of a row from those of its parts."""
    index = tl.arange(0, BLOCK)
    highest = tl.full([BLOCK], float("-inf"), tl.float32)
    for start in range(0, parts, BLOCK):
        value = tl.load(partial + start + index, mask=start + index < parts, other=float("-inf"))
        highest = tl.maximum(highest, value)
    highest = tl.max(highest, axis=0)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, parts, BLOCK):
        value = tl.load(partial + start + index, mask=start + index < parts, other=float("-inf"))
        total += tl.exp2((value - highest) * LOG2E)
    return highest + tl.log2(tl.sum(total, axis=0)) * LN2


# --- cross-entropy over the up-sampled logits ---


@_kernel
def upsampled_lse_kernel(
    logits: tl.tensor,  # (N * K, H, W)
    targets: tl.tensor,  # (N * K,)
    partial: tl.tensor,  # (N * K, parts) out
    height: tl.tensor,
    width: tl.tensor,
    FACTOR: tl.constexpr,
    BAND: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Log-sum-exp of the up-sampled logits of one part."""
    row, part, first, columns = _part(height, width, BAND, COLUMNS)
    if tl.load(targets + row) >= 0:
        logits += row * height * width
        # A column beyond the width repeats the last one, which does not change the maximum.
        here = tl.minimum(columns, width - 1)
        left = tl.maximum(here - 1, 0)
        right = tl.minimum(here + 1, width - 1)
        a0, b0, c0 = _three(logits, tl.maximum(first - 1, 0), left, here, right, width, 0.0)
        a1, b1, c1 = _three(logits, first, left, here, right, width, 0.0)
        # Each column keeps a separate maximum and the sum relative to it.
        highest = tl.full([COLUMNS], float("-inf"), tl.float32)
        total = tl.zeros([COLUMNS], tl.float32)
        for line in range(first, tl.minimum(first + BAND, height)):
            a2, b2, c2 = _three(logits, tl.minimum(line + 1, height - 1), left, here, right, width, 0.0)
            top = highest
            for i in tl.static_range(FACTOR):
                a = _fine(a0, a1, a2, i, FACTOR)
                b = _fine(b0, b1, b2, i, FACTOR)
                c = _fine(c0, c1, c2, i, FACTOR)
                for j in tl.static_range(FACTOR):
                    top = tl.maximum(top, _fine(a, b, c, j, FACTOR))
            total *= tl.exp2(highest - top)
            highest = top
            for i in tl.static_range(FACTOR):
                a = _fine(a0, a1, a2, i, FACTOR) - top
                b = _fine(b0, b1, b2, i, FACTOR) - top
                c = _fine(c0, c1, c2, i, FACTOR) - top
                for j in tl.static_range(FACTOR):
                    total += tl.exp2(_fine(a, b, c, j, FACTOR))
            a0, b0, c0, a1, b1, c1 = a1, b1, c1, a2, b2, c2
        highest_of_all = tl.max(highest, axis=0)
        total = tl.where(columns < width, total * tl.exp2(highest - highest_of_all), 0.0)
        tiles = tl.cdiv(width, COLUMNS)
        parts = tiles * tl.cdiv(height, BAND)
        tl.store(partial + row * parts + part, (highest_of_all + tl.log2(tl.sum(total, axis=0))) * LN2)


@_kernel
def upsampled_merge_kernel(
    logits: tl.tensor,  # (N * K, H, W)
    targets: tl.tensor,  # (N * K,)
    partial: tl.tensor,  # (N * K, parts)
    losses: tl.tensor,  # (N * K,) out
    lse: tl.tensor,  # (N * K,) out
    height: tl.tensor,
    width: tl.tensor,
    parts: tl.tensor,
    FACTOR: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Loss of one row: its log-sum-exp minus the up-sampled logit of its target."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + row)
    if target < 0:
        tl.store(losses + row, 0.0)
        tl.store(lse + row, float("inf"))
    else:
        whole = _merge_lse(partial + row * parts, parts, BLOCK)
        logits += row * height * width
        upper, lower, down, left, right, across = _taps(target, height, width, FACTOR)
        a = tl.load(logits + upper * width + left).to(tl.float32)
        b = tl.load(logits + upper * width + right).to(tl.float32)
        c = tl.load(logits + lower * width + left).to(tl.float32)
        d = tl.load(logits + lower * width + right).to(tl.float32)
        a += (b - a) * across
        c += (d - c) * across
        tl.store(losses + row, whole - (a + (c - a) * down))
        tl.store(lse + row, whole)


@_kernel
def upsampled_backward_kernel(
    grad_losses: tl.tensor,  # (N * K,)
    logits: tl.tensor,  # (N * K, H, W)
    targets: tl.tensor,  # (N * K,)
    lse: tl.tensor,  # (N * K,)
    grad_logits: tl.tensor,  # (N * K, H, W) out
    height: tl.tensor,
    width: tl.tensor,
    FACTOR: tl.constexpr,
    BAND: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Gradient of the coarse logits of one part.

    A coarse cell accumulates the gradients of the fine cells between it and its eight neighbours. The program iterates
    down the gaps between two lines of cells; a gap's contribution to the line below is kept until the next gap
    completes that line.
    """
    row, _, first, columns = _part(height, width, BAND, COLUMNS)
    last = tl.minimum(first + BAND, height)
    target = tl.load(targets + row)
    grad_logits += row * height * width
    dtype = grad_logits.dtype.element_ty
    if target < 0:
        for line in range(first, last):
            tl.store(grad_logits + line * width + columns, tl.zeros([COLUMNS], dtype), mask=columns < width)
    else:
        logits += row * height * width
        grad = tl.load(grad_losses + row)
        shift = tl.load(lse + row)
        here = tl.minimum(columns, width - 1)
        left = tl.maximum(here - 1, 0)
        right = tl.minimum(here + 1, width - 1)
        upper, lower, down, target_left, target_right, across = _taps(target, height, width, FACTOR)
        at_target = tl.where(columns == target_left, 1 - across, 0.0) + tl.where(columns == target_right, across, 0.0)
        a0, b0, c0 = _three(logits, tl.maximum(first - 1, 0), left, here, right, width, shift)
        from_above = tl.zeros([COLUMNS], tl.float32)
        for gap in range(first, last + 1):
            # between the lines gap - 1 and gap
            a1, b1, c1 = _three(logits, tl.minimum(gap, height - 1), left, here, right, width, shift)
            to_above = tl.zeros([COLUMNS], tl.float32)
            to_below = tl.zeros([COLUMNS], tl.float32)
            for i in tl.static_range(FACTOR):
                down_i = (2 * i + 1 - FACTOR % 2) / (2 * FACTOR)
                a = a0 + (a1 - a0) * down_i
                b = b0 + (b1 - b0) * down_i
                c = c0 + (c1 - c0) * down_i
                collected = tl.zeros([COLUMNS], tl.float32)
                for j in tl.static_range(FACTOR):
                    across_j = (2 * j + 1 - FACTOR % 2) / (2 * FACTOR)
                    collected += tl.exp2(a + (b - a) * across_j) * across_j
                    collected += tl.exp2(b + (c - b) * across_j) * (1 - across_j)
                to_above += collected * (1 - down_i)
                to_below += collected * down_i
            line = gap - 1
            of_line = tl.where(line == upper, 1 - down, 0.0) + tl.where(line == lower, down, 0.0)
            value = grad * (from_above + to_above - of_line * at_target)
            # The first gap completes a line of the part above, which another program writes.
            mask = (columns < width) & (gap > first)
            tl.store(grad_logits + line * width + columns, value.to(dtype), mask=mask)
            from_above = to_below
            a0, b0, c0 = a1, b1, c1


# --- expected distance ---


@triton.jit
def _squash(error_x, error_y, steepness):
    """tanh(steepness * distance), steepness >= 0, and its derivative by the error (x or y) divided by that error."""
    squared = error_x * error_x + error_y * error_y
    # the reference's floor, below which the slope is zero
    floored = tl.maximum(squared, 1e-12)
    inverse = tl.rsqrt(floored)
    x = floored * inverse * steepness
    t = tl.exp2(x * (-2 * LOG2E))
    share = 1 / (1 + t)
    # 1 - t cancels where x is small
    x2 = x * x
    series = x * (1 - x2 * (1 / 3 - x2 * (2 / 15 - x2 * (17 / 315))))
    squashed = tl.where(x < 0.125, series, (1 - t) * share)
    slope = 4 * t * share * share * steepness * inverse
    return squashed, tl.where(squared >= 1e-12, slope, 0.0)


@_kernel
def distance_parts_kernel(
    logits: tl.tensor,  # (N * K, H, W)
    offsets: tl.tensor,  # (B, K, 2, H, W)
    image_index: tl.tensor,  # (N,)
    keypoints: tl.tensor,  # (N * K, 3)
    box_sizes: tl.tensor,  # (N,)
    partial: tl.tensor,  # (N * K, 2, parts) out: log-sum-exp, expectation of the squashed distance
    height: tl.tensor,
    width: tl.tensor,
    num_keypoints: tl.tensor,
    stride: tl.tensor,
    distance_norm: tl.tensor,
    BAND: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Softmax-weighted mean of the squashed distance over one part."""
    row, part, first, columns = _part(height, width, BAND, COLUMNS)
    if tl.load(keypoints + row * 3 + 2) > 0:
        instance = row // num_keypoints
        kind = row % num_keypoints
        x = tl.load(keypoints + row * 3)
        y = tl.load(keypoints + row * 3 + 1)
        steepness = distance_norm * 0.5 / tl.maximum(tl.load(box_sizes + instance), 1.0)
        num_cells = height * width
        logits += row * num_cells
        offsets += (tl.load(image_index + instance) * num_keypoints + kind) * 2 * num_cells

        lines = first + tl.arange(0, BAND)
        cell = lines[:, None] * width + columns[None, :]
        mask = (lines < height)[:, None] & (columns < width)[None, :]
        value = tl.load(logits + cell, mask=mask, other=float("-inf")).to(tl.float32)
        offset_x = tl.load(offsets + cell, mask=mask, other=0.0).to(tl.float32)
        offset_y = tl.load(offsets + num_cells + cell, mask=mask, other=0.0).to(tl.float32)
        center_x = (columns * stride + stride // 2).to(tl.float32) - x
        center_y = (lines * stride + stride // 2).to(tl.float32) - y
        squashed, _ = _squash(center_x[None, :] + offset_x, center_y[:, None] + offset_y, steepness)

        highest = tl.max(value)
        weight = tl.exp2((value - highest) * LOG2E)
        total = tl.sum(weight)
        parts = tl.cdiv(width, COLUMNS) * tl.cdiv(height, BAND)
        partial += row * 2 * parts + part
        tl.store(partial, highest + tl.log2(total) * LN2)
        tl.store(partial + parts, tl.sum(weight * squashed) / total)


@_kernel
def distance_merge_kernel(
    keypoints: tl.tensor,  # (N * K, 3)
    partial: tl.tensor,  # (N * K, 2, parts)
    losses: tl.tensor,  # (N * K,) out
    lse: tl.tensor,  # (N * K,) out
    parts: tl.tensor,
    distance_norm: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Loss of one row from its parts."""
    row = tl.program_id(0).to(tl.int64)
    if tl.load(keypoints + row * 3 + 2) > 0:
        partial += row * 2 * parts
        whole = _merge_lse(partial, parts, BLOCK)
        index = tl.arange(0, BLOCK)
        expectation = tl.zeros([BLOCK], tl.float32)
        for start in range(0, parts, BLOCK):
            mask = start + index < parts
            part_lse = tl.load(partial + start + index, mask=mask, other=float("-inf"))
            part_mean = tl.load(partial + parts + start + index, mask=mask, other=0.0)
            expectation += tl.exp2((part_lse - whole) * LOG2E) * part_mean
        tl.store(losses + row, tl.sum(expectation, axis=0) / distance_norm)
        tl.store(lse + row, whole)
    else:
        tl.store(losses + row, 0.0)
        tl.store(lse + row, float("inf"))


@_kernel
def distance_backward_kernel(
    grad_losses: tl.tensor,  # (N * K,)
    logits: tl.tensor,  # (N * K, H, W)
    offsets: tl.tensor,  # (B, K, 2, H, W)
    order: tl.tensor,  # (N,) the instances, sorted by image
    starts: tl.tensor,  # (B + 1,) index in ``order`` of each image's first instance
    keypoints: tl.tensor,  # (N * K, 3)
    box_sizes: tl.tensor,  # (N,)
    losses: tl.tensor,  # (N * K,)
    lse: tl.tensor,  # (N * K,)
    grad_logits: tl.tensor,  # (N * K, H, W) out
    grad_offsets: tl.tensor,  # (B, K, 2, H, W) out
    height: tl.tensor,
    width: tl.tensor,
    num_keypoints: tl.tensor,
    stride: tl.tensor,
    distance_norm: tl.tensor,
    INSTANCES: tl.constexpr,
    CELLS: tl.constexpr,
) -> None:
    """Both gradients for some cells of one offset map and all instances of its image, INSTANCES at a time.

    The gradient of the offsets is summed in the order of the instances, so it is deterministic.
    """
    num_cells = height * width
    tiles = tl.cdiv(num_cells, CELLS)
    program = tl.program_id(0)
    map_index = program // tiles
    image = map_index // num_keypoints
    kind = map_index % num_keypoints
    cell = (program % tiles) * CELLS + tl.arange(0, CELLS)
    on_map = cell < num_cells
    map_start = map_index.to(tl.int64) * 2 * num_cells
    offset_x = tl.load(offsets + map_start + cell, mask=on_map, other=0.0).to(tl.float32)
    offset_y = tl.load(offsets + map_start + num_cells + cell, mask=on_map, other=0.0).to(tl.float32)
    # each cell's estimate of the keypoint
    x = ((cell % width) * stride + stride // 2).to(tl.float32) + offset_x
    y = ((cell // width) * stride + stride // 2).to(tl.float32) + offset_y

    grad_x = tl.zeros([CELLS], tl.float32)
    grad_y = tl.zeros([CELLS], tl.float32)
    last = tl.load(starts + image + 1).to(tl.int32)
    for start in range(tl.load(starts + image).to(tl.int32), last, INSTANCES):
        index = start + tl.arange(0, INSTANCES)
        present = index < last
        instance = tl.load(order + index, mask=present, other=0)
        row = instance * num_keypoints + kind
        row_lse = tl.load(lse + row, mask=present, other=float("inf"))
        labelled = row_lse < float("inf")
        keypoint_x = tl.load(keypoints + row * 3, mask=labelled, other=0.0)
        keypoint_y = tl.load(keypoints + row * 3 + 1, mask=labelled, other=0.0)
        steepness = distance_norm * 0.5 / tl.maximum(tl.load(box_sizes + instance, mask=labelled, other=1.0), 1.0)
        grad = tl.load(grad_losses + row, mask=labelled, other=0.0) / distance_norm
        expectation = tl.load(losses + row, mask=labelled, other=0.0) * distance_norm

        mask = present[:, None] & on_map[None, :]
        start_of_row = row[:, None] * num_cells
        value = tl.load(logits + start_of_row + cell[None, :], mask=mask, other=0.0).to(tl.float32)
        weight = grad[:, None] * tl.exp2((value - row_lse[:, None]) * LOG2E)
        error_x = x[None, :] - keypoint_x[:, None]
        error_y = y[None, :] - keypoint_y[:, None]
        squashed, slope = _squash(error_x, error_y, steepness[:, None])
        grad_value = weight * (squashed - expectation[:, None])
        tl.store(grad_logits + start_of_row + cell[None, :], grad_value.to(grad_logits.dtype.element_ty), mask=mask)
        slope *= weight
        grad_x += tl.sum(slope * error_x, axis=0)
        grad_y += tl.sum(slope * error_y, axis=0)

    dtype = grad_offsets.dtype.element_ty
    tl.store(grad_offsets + map_start + cell, grad_x.to(dtype), mask=on_map)
    tl.store(grad_offsets + map_start + num_cells + cell, grad_y.to(dtype), mask=on_map)
