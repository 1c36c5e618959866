"""Exported files beside the models: the time of one image in onnxruntime and OpenVINO.

Each model is compared with its copy that is optimized for inference, in float32, and with its exported file in each
runtime, all with the same threads. No weights and no data are needed: as in `dynpose benchmark model`, detections are
injected, also into the exported graph, which therefore belongs to one image size and one number of people.
"""
