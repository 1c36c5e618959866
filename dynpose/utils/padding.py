"""The padding of images to a network's stride."""

__all__ = ["padded_size"]


def padded_size(height: int, width: int, size_divisibility: int) -> tuple[int, int]:
    """The size of an individually padded image.

    Args:
        height, width (int): of the image, pixels.
        size_divisibility (int): sides are padded to a multiple of it; 0 or 1 = no padding.

    Returns:
        tuple[int, int]: height and width, pixels.
    """
    multiple = max(1, size_divisibility)
    return -(-int(height) // multiple) * multiple, -(-int(width) // multiple) * multiple
