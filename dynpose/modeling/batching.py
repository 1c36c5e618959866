"""Which images share a forward pass, so that the padding of an image does not depend on the others of its batch.

detectron2 pads the images of a batch at the right and at the bottom to one size. A network sees that padding: biases
and normalisation make it nonzero after the first layers, convolutions carry it over the edge of the image, and
GroupNorm's mean and variance are those of image and padding together. In inference, only images that have the same
size once they are padded by themselves share a batch. The padding of an image is then the same as without the others.
"""


def predict_by_padded_size(predict, batched_inputs, size_divisibility):
    """Run a model on the images of each padded size together, and on those of different ones apart.

    Args:
        predict (callable): list[dict] -> list of one result each.
        batched_inputs (list[dict]): B images in detectron2's format.
        size_divisibility (int): what their sides are padded to a multiple of; 0 or 1 = not at all.

    Returns:
        list: B results, in the order of the inputs.
    """
    if len(batched_inputs) < 2:
        return predict(batched_inputs)
    groups = {}
    for index, inputs in enumerate(batched_inputs):
        groups.setdefault(padded_size(inputs["image"], size_divisibility), []).append(index)
    results = [None] * len(batched_inputs)
    for indices in groups.values():
        for index, result in zip(indices, predict([batched_inputs[index] for index in indices])):
            results[index] = result
    return results


def padded_size(image, size_divisibility):
    """Tell the size of an image that is padded by itself.

    Args:
        image (Tensor): (C, H, W).
        size_divisibility (int): see :func:`predict_by_padded_size`.

    Returns:
        tuple[int, int]: height and width, pixels.
    """
    multiple = max(1, size_divisibility)
    height, width = (-(-int(length) // multiple) * multiple for length in image.shape[-2:])
    return height, width
