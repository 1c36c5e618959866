"""Flip testing on tensors, which an exported graph contains, against PoseTTA."""

import pytest
import torch
from cid_models import tiny_model
from small_models import SCHEMA

from dynpose.modeling.cid.mirroring import mirror_images, mirror_maps
from dynpose.modeling.test_time_augmentation import PoseTTA, resample_map

# divisible by the stride and the padding, by the stride, by neither; a fourth and three fourths of the last cell
SIZES = [(64, 80), (60, 100), (50, 97), (65, 66), (71, 75)]


def padded(images, multiple=8):
    """Batch images (C, h, w) of several sizes: (B, C, H, W) and (B, 2) sizes."""
    height, width = (-(-max(image.shape[axis] for image in images) // multiple) * multiple for axis in (1, 2))
    batch = images[0].new_zeros(len(images), 3, height, width)
    for index, image in enumerate(images):
        batch[index, :, : image.shape[1], : image.shape[2]] = image
    return batch, torch.tensor([image.shape[1:] for image in images])


def test_images_are_mirrored_in_their_own_width():
    images = [torch.rand(3, *size, generator=torch.manual_seed(0)) for size in SIZES]
    batch, sizes = padded(images)
    expected, _ = padded([image.flip(-1) for image in images])
    assert torch.equal(mirror_images(batch, sizes[:, 1]), expected)


@pytest.mark.parametrize("size", SIZES)
def test_maps_are_mirrored_back_as_resampled(size):
    height, width = (-(-length // 4) for length in size)
    maps = torch.rand(2, 3, height + 3, width + 2, generator=torch.manual_seed(0))
    expected = resample_map(
        maps,
        stride=4,
        size=size,
        mirrored=True,
        target_shape=tuple(maps.shape[-2:]),
        target_stride=4,
        target_size=size,
    )
    mirrored = mirror_maps(maps, torch.tensor([size] * 2), stride=4)
    torch.testing.assert_close(mirrored[..., :height, :width], expected[..., :height, :width], rtol=0, atol=2e-5)


@pytest.mark.parametrize("index_coordinates", [False, True])
@torch.no_grad()
def test_flip_testing_is_that_of_pose_tta(index_coordinates):
    model = tiny_model(iia={"score_thresh": 0.0}, index_coordinates=index_coordinates).eval()
    pixels = [
        torch.randint(0, 256, (3, *size), generator=torch.manual_seed(index), dtype=torch.uint8)
        for index, size in enumerate(SIZES)
    ]
    batch, sizes = padded([(image - model.pixel_mean) / model.pixel_std for image in pixels])
    together = model.detect(batch, sizes, flip=True)
    assert together.image.tolist() == sorted(together.image.tolist())
    for index, image in enumerate(pixels):
        predictor = PoseTTA(
            model, schema=SCHEMA, merge="maps", flip=True, min_sizes=(min(image.shape[1:]),), max_size=1000
        )
        expected = predictor([{"image": image}])[0]["instances"]
        of_image = together.image == index
        assert len(expected) == of_image.sum() > 3
        torch.testing.assert_close(together.scores[of_image], expected.scores, rtol=0, atol=1e-5)
        torch.testing.assert_close(together.keypoints[of_image], expected.pred_keypoints, rtol=0, atol=1e-3)
    # the mirror image is another view
    plain = model.detect(batch, sizes)
    assert plain.scores.shape != together.scores.shape or not torch.allclose(plain.scores, together.scores, atol=1e-3)
