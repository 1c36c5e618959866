"""Make figure_*.jpg of visualization.md: the figures of small models of each method.

    make demo
    python projects/trials/trials.py projects/trials/comparison.yaml --output output/comparison --seeds 1 \
        --rows InsPose CID
    dynpose train --config-file quick/querypose_synthetic.yaml OUTPUT_DIR output/querypose <QUERYPOSE>
    python docs/images/make_figures.py fcpose=output/demo inspose=output/comparison/InsPose/seed_1 \
        cid=output/comparison/CID/seed_1 querypose=output/querypose

FCPose, InsPose and CID are drawn on images that they have not seen. QueryPose, whose training takes longer, is
overfitted to eight images, on which it is drawn.

QUERYPOSE: MODEL.BACKBONE.NAME build_timm_fpn_backbone MODEL.TIMM.NAME test_resnet SOLVER.IMS_PER_BATCH 4
SOLVER.WARMUP_ITERS 20 SOLVER.MAX_ITER 500 DATASETS.SYNTHETIC.NUM_TRAIN 8 DATASETS.SYNTHETIC.NUM_VAL 2
DATASETS.SYNTHETIC.IMAGE_SIZE [128,128] DATASETS.SYNTHETIC.PEOPLE [2,2] MODEL.QUERYPOSE.NUM_STAGES 3

Methods that are not given are left out.
"""

import sys
from pathlib import Path

from PIL import Image

from dynpose.engine.figures import PLAIN_INFERENCE, FigureDrawer
from dynpose.engine.predictor import PosePredictor

HERE = Path(__file__).absolute().parent
# Of each method: figures, image, rank of the person, and the threshold on the scores, which are low in short trainings
FIGURES = {
    "fcpose": (("heatmaps", "people"), "val/000004.jpg", 1, 0.3),
    "inspose": (("disk_offsets",), "val/000001.jpg", 1, 0.3),
    "cid": (("centers", "recalibration", "channels"), "val/000003.jpg", 1, 0.1),
    "querypose": (("attention", "stages", "density"), "train/000000.jpg", 1, 0.1),
}


def main() -> None:
    """Draw the figures of the given runs."""
    for method, folder in (argument.split("=", 1) for argument in sys.argv[1:]):
        run, (names, image, person, threshold) = Path(folder), FIGURES[method]
        predictor = PosePredictor.from_files(
            run / "config.yaml", run / "model_final.pth", PLAIN_INFERENCE, "cpu", precision="float32"
        )
        drawer = FigureDrawer(predictor)
        # the config of a run names the folder of its images, if it is another one
        image = str(Path(predictor.cfg.DATASETS.SYNTHETIC.ROOT or run / "synthetic", image))
        for name, picture in drawer.draw(image, names, person=person, score_threshold=threshold).items():
            path = HERE / f"figure_{method}_{name}.jpg"
            # colours at full resolution, for the small letters
            Image.fromarray(picture).save(path, quality=74, subsampling=0, optimize=True)
            print(path.name, path.stat().st_size // 1000, "KB")


if __name__ == "__main__":
    main()
