"""The reference of the KP-Net operator in plain PyTorch: it runs on any device and defines the operator's result.

The first layer is linear in the features and in the relative coordinates, ``sign * (cell - location) / scale``. All
instances of an image share the features and the cells, so the cell coordinates become two shared input channels, and
the remaining constant per instance and output becomes the weight of a third channel of ones. The first layer of many
instances is then a single matrix product over the map. Each hidden layer also outputs a channel of ones, so that the
biases are columns of the weights and the other layers are plain batched products.

Instances are processed in chunks, so that memory is bounded for any N. With gradients and more than one chunk, the
backward pass recomputes the hidden maps of a chunk instead of storing them.

Arguments are those of the public functions, already checked. ``max_elements`` bounds the values (instances x channels
x cells) in the largest map of a chunk.
"""

from __future__ import annotations

import torch
from torch.utils.checkpoint import checkpoint

from .spec import KPNetPeaks

# On a CPU the maps of a chunk (8 MiB each in float32) should fit in the cache. For 50 FCPose samples in training, this
# is faster than one large chunk, even though the hidden maps are computed twice.
_MAX_ELEMENTS_CPU = 2**21
# A GPU is efficient for large products: that batch, at 100 x 167 cells, is one chunk (128 MiB per map in float32).
_MAX_ELEMENTS = 2**25


def _kp_net_heatmaps(nets, *, max_elements=None):
    """Logits of every cell, (N, K, H, W). See :func:`dynpose.layers.kp_net.kp_net_heatmaps`."""
    (heatmaps,) = _over_chunks(_heatmaps, nets, max_elements)
    return heatmaps


@torch.no_grad()
def _kp_net_peaks(nets, *, max_elements=None):
    """Peak of every heatmap, (N, K) each. See :func:`dynpose.layers.kp_net.kp_net_peaks`."""
    return KPNetPeaks(*_over_chunks(_peaks, nets, max_elements))


def _kp_net_cross_entropy(nets, targets, *, max_elements=None):
    """Cross-entropy of every heatmap, (N, K). See :func:`dynpose.layers.kp_net.kp_net_cross_entropy`."""
    (losses,) = _over_chunks(_cross_entropy, nets, max_elements, targets)
    return losses


def _heatmaps(inputs, weights):
    return (_logits(inputs, weights),)


def _peaks(inputs, weights):
    logits = _logits(inputs, weights)
    map_width = logits.shape[3]
    # Find the highest row, then the column in it: on a CPU, max() with an index is several times slower than amax().
    # Both max() and argmax() return the first of equal values.
    values, rows = logits.amax(dim=3).max(dim=2)
    highest_rows = logits.take_along_dim(rows[:, :, None, None], dim=2).squeeze(2)
    indices = rows * map_width + highest_rows.argmax(dim=2)
    # exp(max - logsumexp), in place to reuse the memory of the logits
    confidence = logits.sub_(values[:, :, None, None]).exp_().sum(dim=(2, 3)).reciprocal_()
    return values, indices, confidence


def _cross_entropy(inputs, weights, targets):
    logits = _logits(inputs, weights).flatten(2)
    at_target = logits.gather(2, targets.clamp(min=0)[:, :, None]).squeeze(2)
    losses = logits.logsumexp(dim=2) - at_target
    return (torch.where(targets >= 0, losses, torch.zeros_like(losses)),)


def _logits(inputs, weights):
    """Run the KP-Nets of n instances over the map of one image.

    Args:
        inputs: (C + 3, H, W), from :func:`_shared_inputs`.
        weights: weights of each layer, from :func:`_fold`.

    Returns:
        (n, K, H, W).
    """
    first, *later = weights
    maps = first.flatten(0, 1) @ inputs.flatten(1)
    num_cells = maps.shape[1]
    for weight in later:
        # The backward pass of a product does not need its result, so ReLU may overwrite it.
        maps = torch.bmm(weight, maps.relu_().view(len(weight), weight.shape[2], num_cells))
    return maps.view(*weights[-1].shape[:2], *inputs.shape[1:])


def _shared_inputs(features):
    """The input that all instances of an image share: (C + 3, H, W) from (C, H, W).

    The added channels are those of :func:`_cell_coordinates`, and ones.
    """
    return torch.cat([features, _cell_coordinates(features), torch.ones_like(features[:1])])


def _cell_coordinates(features):
    """The x and y of every cell of features (C, H, W): (2, H, W).

    They are in strides from the middle of the map: exact in float32, and small, which limits cancellation in cells near
    the location.
    """
    height, width = features.shape[-2:]
    x = torch.arange(width, dtype=features.dtype, device=features.device) - (width - 1) / 2
    y = torch.arange(height, dtype=features.dtype, device=features.device) - (height - 1) / 2
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])


def _fold(params, locations, coord_scale, spec, stride, height, width):
    """Fold the relative coordinates and biases of n instances into weights for a last channel of ones.

    Returns:
        The weights of the layers: (n, out + 1, in + 1) for a hidden layer, whose last output is one, and (n, K, in + 1)
        for the last. The input of the first is :func:`_shared_inputs`, C + 3 channels.
    """
    layers = _fold_coordinates(params, locations, coord_scale, spec, stride, height, width)
    weights = [torch.cat([weight, bias[:, :, None]], dim=2) for weight, bias in layers]
    return [*(_propagate_ones(weight) for weight in weights[:-1]), weights[-1]]


def _fold_coordinates(params, locations, coord_scale, spec, stride, height, width):
    """Fold the relative coordinates of n instances into the first layer's weights and biases.

    Returns:
        Weight (n, out, in) and bias (n, out) of each layer. The input of the first is the C features and
        :func:`_cell_coordinates`.
    """
    (weight, bias), *later = spec.unpack(params)
    if spec.coords_position == "first":
        on_coords, on_features = weight.split([2, spec.in_channels], dim=2)
    else:
        on_features, on_coords = weight.split([spec.in_channels, 2], dim=2)
    on_offset = on_coords * (spec.coords_sign / coord_scale)[:, None, None]
    # The middle stays two Python numbers: a tensor made from them would synchronise with a CUDA device.
    middle = ((size - 1) / 2 * stride + stride // 2 for size in (width, height))
    from_location = torch.stack([m - x for m, x in zip(middle, locations.unbind(1))], dim=1)
    constant = bias + (on_offset * from_location[:, None, :]).sum(dim=2)

    return [(torch.cat([on_features, on_offset * stride], dim=2), constant), *later]


def _propagate_ones(weight):
    """Add an output that copies the last input: (n, out + 1, in) from (n, out, in)."""
    copy = torch.zeros_like(weight[:, :1])
    copy[:, :, -1] = 1
    return torch.cat([weight, copy], dim=1)


def _over_chunks(function, nets, max_elements, *extra):
    """Call ``function(inputs, weights, *extra)`` on chunks of instances of one image each.

    Args:
        nets: all instances.
        max_elements: bound of the largest map; None for the device's default.
        extra: further tensors whose first axis is N.

    Returns:
        The concatenated results of ``function``, a tuple of tensors with first axis N in the order of the arguments.
    """
    dtype = torch.promote_types(torch.promote_types(nets.features.dtype, nets.params.dtype), torch.float32)
    tensors = (nets.features, nets.params, nets.locations, nets.coord_scale)
    features, params, locations, coord_scale = (tensor.to(dtype) for tensor in tensors)
    num_images, _, height, width = features.shape

    if max_elements is None:
        max_elements = _MAX_ELEMENTS_CPU if features.device.type == "cpu" else _MAX_ELEMENTS
    largest_layer = max(channels for _, channels in nets.spec.layer_sizes) + 1  # the channel of ones
    chunk_size = max(1, max_elements // (largest_layer * height * width))
    recompute = torch.is_grad_enabled() and len(params) > chunk_size

    results, order = [], []
    for image, members in _group_by_image(nets.image_index, num_images):
        inputs = _shared_inputs(features[image])
        for chunk in members.split(chunk_size):
            weights = _fold(params[chunk], locations[chunk], coord_scale[chunk], nets.spec, nets.stride, height, width)
            arguments = (inputs, weights, *(tensor[chunk] for tensor in extra))
            if recompute:
                results.append(checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False))
            else:
                results.append(function(*arguments))
            order.append(chunk)
    if len(results) == 1:
        return results[0]
    results = tuple(torch.cat(parts) for parts in zip(*results))
    return results if num_images == 1 else tuple(result[torch.cat(order).argsort()] for result in results)


def _group_by_image(image_index, num_images):
    """List (image, indices of its instances) for the images that have instances.

    Without instances, the list is one image with no indices: an empty chunk gives results of the right shape, and zero
    gradients instead of None. More than one image synchronises with a CUDA device once.
    """
    if num_images == 1 or len(image_index) == 0:
        return [(0, torch.arange(len(image_index), device=image_index.device))]
    counts = torch.bincount(image_index, minlength=num_images).tolist()
    members = image_index.argsort(stable=True).split(counts)
    return [(image, indices) for image, indices in enumerate(members) if len(indices)]
