"""Make figure_*.jpg of visualization.md: the figures of small models of each method.

    make demo
    dynpose train --config-file quick/inspose_synthetic.yaml OUTPUT_DIR output/inspose <INSPOSE>
    dynpose train --config-file quick/cid_synthetic.yaml OUTPUT_DIR output/cid <SMALL> <CID>
    dynpose train --config-file quick/querypose_synthetic.yaml OUTPUT_DIR output/querypose <SMALL> <QUERYPOSE>
    python docs/images/make_figures.py fcpose=output/demo inspose=output/inspose cid=output/cid \
        querypose=output/querypose

FCPose and InsPose are drawn on images that they have not seen. CID and QueryPose, whose trainings take longer, are
overfitted to eight images, on which they are drawn.

INSPOSE: MODEL.BACKBONE.NAME build_fcos_timm_fpn_backbone MODEL.TIMM.NAME test_resnet SOLVER.IMS_PER_BATCH 8
SOLVER.MAX_ITER 1000 SOLVER.WARMUP_ITERS 50 DATASETS.SYNTHETIC.NUM_TRAIN 2000 DATASETS.SYNTHETIC.NUM_VAL 300
DATASETS.SYNTHETIC.PEOPLE [1,4] DATASETS.SYNTHETIC.SCALE [0.5,0.9] DATASETS.SYNTHETIC.CROWDING 0.5 SEED 1

SMALL: MODEL.BACKBONE.NAME build_timm_fpn_backbone MODEL.TIMM.NAME test_resnet SOLVER.IMS_PER_BATCH 4
SOLVER.WARMUP_ITERS 20 DATASETS.SYNTHETIC.NUM_TRAIN 8 DATASETS.SYNTHETIC.NUM_VAL 2
DATASETS.SYNTHETIC.IMAGE_SIZE [128,128]

CID: SOLVER.MAX_ITER 300 DATASETS.SYNTHETIC.CROWDING 0.3 MODEL.CID.MIN_BOX_AREA 0.0 INPUT.AFFINE.ENABLED False
INPUT.MIN_SIZE_TRAIN (128,) INPUT.MIN_SIZE_TRAIN_SAMPLING choice INPUT.MIN_SIZE_TEST 128

QUERYPOSE: SOLVER.MAX_ITER 500 DATASETS.SYNTHETIC.PEOPLE [2,2] MODEL.QUERYPOSE.NUM_STAGES 3

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
    "cid": (("centers", "recalibration", "channels"), "train/000004.jpg", 1, 0.1),
    "querypose": (("attention", "stages", "density"), "train/000000.jpg", 1, 0.1),
}


def main() -> None:
    """Draw the figures of the given runs."""
    for method, folder in (argument.split("=", 1) for argument in sys.argv[1:]):
        run, (names, image, person, threshold) = Path(folder), FIGURES[method]
        predictor = PosePredictor.from_files(run / "config.yaml", run / "model_final.pth", PLAIN_INFERENCE, "cpu")
        drawer, image = FigureDrawer(predictor), str(run / "synthetic" / image)
        for name, picture in drawer.draw(image, names, person=person, score_threshold=threshold).items():
            path = HERE / f"figure_{method}_{name}.jpg"
            # colours at full resolution, for the small letters
            Image.fromarray(picture).save(path, quality=74, subsampling=0, optimize=True)
            print(path.name, path.stat().st_size // 1000, "KB")


if __name__ == "__main__":
    main()
