"""Every configuration key, with its meaning, unit and options. Where detectron2 has the same thing, so has its key.

``checks.py`` needs a row for each key: the allowed values, and the tasks that use the key.

The defaults are those of a nano model; ``configs/`` states what differs.
"""

from detectron2.config import CfgNode as CN

from parking.utils.constants import CSP_DARKNET_PAFPN

from . import compat


def make_defaults() -> CN:
    """All keys with their defaults, a new object every time."""
    cfg = CN()
    # Version of the names of keys and of what else is kept in files. A yaml without it has version 1; see compat.py.
    cfg.VERSION = compat.CURRENT_VERSION
    # Folder of what a training writes.
    cfg.OUTPUT_DIR = "./output"
    # 0 or more: a training ends with the same weights each time, bit for bit, for any number of data workers, whether
    # interrupted or not; a GPU then uses deterministic kernels, which are slower. -1: a new seed each time.
    cfg.SEED = -1
    # Let cuDNN try which convolutions are fastest, for each shape anew.
    cfg.CUDNN_BENCHMARK = False
    _add_data(cfg)
    _add_model(cfg)
    _add_solver(cfg)
    _add_test(cfg)
    return cfg


def _add_data(cfg: CN) -> None:
    cfg.DATASETS = CN()
    # Root of the challenge's layout (see datasets/README.md); registers parking_train, _val, _trainval and _test.
    cfg.DATASETS.ROOT = "/DATA"
    # How Train.json is divided into parking_train and parking_val.
    #   "sequence": VAL_FRACTION of the images, in whole sequences (neighbouring frames are alike), are parking_val
    #   "entry": the 3,000 images that the 2022 entry drew at random; an error on smaller sets
    #   "all": parking_train is everything, and parking_val is empty
    cfg.DATASETS.SPLIT = "sequence"
    # Share of the images that the "sequence" split keeps for validation, 0..1.
    cfg.DATASETS.VAL_FRACTION = 0.12
    # Seed of the "sequence" split.
    cfg.DATASETS.SPLIT_SEED = 0
    # What happens to faulty annotations and images: "strict" stops, "repair" repairs or leaves out what it can, and
    # counts it. The table in datasets/README.md lists all faults.
    cfg.DATASETS.POLICY = "strict"
    # Whether a json may name images by absolute paths outside its image folder. Names with ".." never may.
    cfg.DATASETS.ALLOW_OUTSIDE = False
    # Any other COCO-format data: a list of [name, json file, image folder]. Classes come from the json's categories.
    cfg.DATASETS.COCO = []
    # Names of the data sets to train on and to evaluate on.
    cfg.DATASETS.TRAIN = ("parking_train",)
    cfg.DATASETS.TEST = ("parking_val",)
    cfg.DATALOADER = CN()
    # Processes that read and augment images, for each process that trains or infers; 0: that process itself.
    cfg.DATALOADER.NUM_WORKERS = 4
    # Order of the training images.
    #   "TrainingSampler": shuffled passes
    #   "ClassBalancedTrainingSampler": drawn with replacement, more often if an image's classes are rare and badly
    #       detected; drawn anew for each epoch of SOLVER.ITERS_PER_EPOCH iterations
    #   "RepeatFactorTrainingSampler": shuffled passes, in which images with classes that occur in less than
    #       DATALOADER.REPEAT_THRESHOLD (0..1) of the images are repeated
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"
    cfg.DATALOADER.REPEAT_THRESHOLD = 0.0
    # Whether an image is repeated sqrt(threshold / frequency) times, or threshold / frequency times.
    cfg.DATALOADER.REPEAT_SQRT = True

    cfg.INPUT = CN()
    # Height and width in pixels of a training sample; multiples of the largest stride.
    cfg.INPUT.SIZE_TRAIN = [640, 640]
    # Long side in pixels to which an image is resized (enlarged too) for evaluation and inference.
    cfg.INPUT.SIZE_TEST = 640
    # Whether pictures are turned upright by their EXIF orientation, before anything else; boxes and sizes in
    # annotations and results refer to the picture as it is used.
    #   "auto": if a json or an image list states a size, upright or as stored, whichever has that size; if both have it
    #       (half a turn, mirrored, square), as the other pictures of the json, or else as stored. If no size is stated,
    #       upright.
    #   "apply": upright
    #   "ignore": as stored
    cfg.INPUT.EXIF_ORIENTATION = "auto"
    # Keep decoded images, resized to SIZE_TRAIN, instead of decoding them anew each time: "none", "ram" or "disk".
    cfg.INPUT.CACHE = "none"
    # How: "raw" pixels, which change nothing (2.8 MB an image at 1280), or "jpeg", an eighth of that or less.
    cfg.INPUT.CACHE_FORMAT = "raw"
    # Folder of the "disk" cache; "": parking in the user's cache folder.
    cfg.INPUT.CACHE_DIR = ""
    # Largest size of a cache in GB of 10^9 bytes; checked at the start, for "jpeg" by an estimate.
    cfg.INPUT.CACHE_GB = 20.0
    cfg.INPUT.AUG = CN()
    # Probability that a sample is a mosaic of four images.
    cfg.INPUT.AUG.MOSAIC_PROB = 1.0
    # Probability that a mosaic is blended with a second one.
    cfg.INPUT.AUG.MIXUP_PROB = 0.0
    # Iterations at the end of training (before SOLVER.MAX_ITER) without mosaic and mixup; 0: they are never off.
    cfg.INPUT.AUG.STRONG_OFF_ITERS = 0
    # Random affine map: rotation in +-degrees, translation in +-parts of the sample's sides, scale in 1 +- SCALE,
    # shear in +-degrees, perspective in +-1/pixel (0..0.001).
    cfg.INPUT.AUG.DEGREES = 0.0
    cfg.INPUT.AUG.TRANSLATE = 0.1
    cfg.INPUT.AUG.SCALE = 0.5
    cfg.INPUT.AUG.SHEAR = 0.0
    cfg.INPUT.AUG.PERSPECTIVE = 0.0
    # Random gains 1 +- value of hue, saturation and value.
    cfg.INPUT.AUG.HSV_H = 0.015
    cfg.INPUT.AUG.HSV_S = 0.7
    cfg.INPUT.AUG.HSV_V = 0.4
    # Probability of a left-right and of an up-down flip.
    cfg.INPUT.AUG.FLIP_LR_PROB = 0.5
    cfg.INPUT.AUG.FLIP_UD_PROB = 0.0


def _add_model(cfg: CN) -> None:
    cfg.MODEL = CN()
    # "cuda", "cuda:1" (the second GPU) or "cpu".
    cfg.MODEL.DEVICE = "cuda"
    cfg.MODEL.META_ARCHITECTURE = "YOLO"
    # A weights file to start from or to use; "": random weights.
    cfg.MODEL.WEIGHTS = ""
    # The network reads RGB, (pixel - PIXEL_MEAN) / PIXEL_STD for pixels of 0..255.
    cfg.MODEL.PIXEL_MEAN = [0.0, 0.0, 0.0]
    cfg.MODEL.PIXEL_STD = [255.0, 255.0, 255.0]
    cfg.MODEL.BACKBONE = CN()
    # This project's own, one of detectron2's (see below), or one that you register.
    cfg.MODEL.BACKBONE.NAME = CSP_DARKNET_PAFPN
    cfg.MODEL.HEAD = CN()
    # A name in DENSE_HEAD_REGISTRY; a head reads MODEL.YOLO.NUM_CLASSES, MODEL.YOLO.IN_FEATURES and a group of its own.
    cfg.MODEL.HEAD.NAME = "AnchorHead"
    _add_anchor_head(cfg)
    _add_distribution_head(cfg)
    _add_yolox_head(cfg)
    _add_detectron2_backbones(cfg)

    # Only this project's own backbone reads these two groups and MODEL.YOLO.DEPTH_MULTIPLE and WIDTH_MULTIPLE.
    cfg.MODEL.CSP_DARKNET = CN()
    # Stages whose features are returned; the last one ends the backbone: "dark5" makes a P5 model, "dark6" a P6 model.
    cfg.MODEL.CSP_DARKNET.OUT_FEATURES = ["dark3", "dark4", "dark5"]
    # Repeats of the stages and order of the last one: "yolov5", or "yolox" (P5 models only).
    cfg.MODEL.CSP_DARKNET.LAYOUT = "yolov5"
    cfg.MODEL.PAFPN = CN()
    # Stages that the neck joins, finest first; its outputs are named p3, p4, ... after them.
    cfg.MODEL.PAFPN.IN_FEATURES = ["dark3", "dark4", "dark5"]

    cfg.MODEL.YOLO = CN()
    # Number of classes; 0 means as many as the training set has, and for infer.py as many as the weights have.
    cfg.MODEL.YOLO.NUM_CLASSES = 14
    # Classes of MODEL.WEIGHTS to start from, if they differ from those of the data: pairs
    # [class of the data, class of the weights]. A class that is not listed starts from the class of the same name, if
    # there is one, else anew, as does a class that is listed with ''.
    cfg.MODEL.YOLO.CLASS_MAP = []
    # Depth (repeats of a block) and width (channels) relative to the large model, for backbone and neck.
    cfg.MODEL.YOLO.DEPTH_MULTIPLE = 0.33
    cfg.MODEL.YOLO.WIDTH_MULTIPLE = 0.25
    # Whether every 3x3 convolution but the stem's, in backbone, neck and the YOLOX head, is replaced by a depthwise 3x3
    # and a 1x1 convolution: fewer parameters and operations, as YOLOX-nano has it.
    cfg.MODEL.YOLO.DEPTHWISE = False
    # "BN", or "SyncBN" to share the statistics between GPUs.
    cfg.MODEL.YOLO.NORM = "BN"
    # Levels the head works on, finest first.
    cfg.MODEL.YOLO.IN_FEATURES = ["p3", "p4", "p5"]
    # Candidates need a score above this, 0..1.
    cfg.MODEL.YOLO.SCORE_THRESH_TEST = 0.05
    # True: every class of a prediction above the threshold is a candidate. False: its best class only.
    cfg.MODEL.YOLO.MULTI_LABEL_TEST = True
    # IoU above which the lower of two boxes of a class is suppressed.
    cfg.MODEL.YOLO.NMS_THRESH_TEST = 0.5
    # Number of best candidates of an image that take part in the suppression.
    cfg.MODEL.YOLO.PRE_NMS_TOPK_TEST = 30000


def _add_detectron2_backbones(cfg: CN) -> None:
    """Keys that only detectron2's backbones read; with this project's own, they must keep their defaults."""
    # How many stages stay untrained: 1 is the stem, 2 is stem and res2. detectron2's default, 2, suits its weights.
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS = CN()
    cfg.MODEL.RESNETS.DEPTH = 50
    # Stages that return features, finest first: "stem" (stride 4), "res2" (4), "res3" (8), "res4" (16), "res5" (32)
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    # More than 1 makes a ResNeXt.
    cfg.MODEL.RESNETS.NUM_GROUPS = 1
    # "BN", "SyncBN" or "GN". Not detectron2's FrozenBN: it never learns, and random weights need norms that do.
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 64
    # Whether the stride of a bottleneck is in its first (1x1) convolution, or in the 3x3 one.
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = True
    # 2 keeps the stride of res5 at 16.
    cfg.MODEL.RESNETS.RES5_DILATION = 1
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 256
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 64
    cfg.MODEL.FPN = CN()
    # Stages that the pyramid joins, finest first, up to res5; its outputs are p3 of res3, p4 of res4, ...
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 256
    # "" for none, "BN", "SyncBN" or "GN".
    cfg.MODEL.FPN.NORM = ""
    # "sum" or "avg" of a finer and a coarser level.
    cfg.MODEL.FPN.FUSE_TYPE = "sum"


def _add_anchor_head(cfg: CN) -> None:
    cfg.MODEL.ANCHOR_HEAD = CN()
    # Anchors per level: [width, height] in pixels of the network's input.
    cfg.MODEL.ANCHOR_HEAD.ANCHORS = [
        [[10, 13], [16, 30], [33, 23]],
        [[30, 61], [62, 45], [59, 119]],
        [[116, 90], [156, 198], [373, 326]],
    ]
    # Whether anchors in MODEL.WEIGHTS, with which the weights were trained, replace ANCHORS.
    cfg.MODEL.ANCHOR_HEAD.ANCHORS_FROM_WEIGHTS = True
    # A box is matched with an anchor whose width and height differ from its own by less than this factor.
    cfg.MODEL.ANCHOR_HEAD.ANCHOR_RATIO = 4.0
    cfg.MODEL.ANCHOR_HEAD.LOSS = CN()
    # Gains of the three terms, for 3 levels, 80 classes and 640 x 640 pixels; the model scales them to its own.
    cfg.MODEL.ANCHOR_HEAD.LOSS.BOX_GAIN = 0.05
    cfg.MODEL.ANCHOR_HEAD.LOSS.OBJ_GAIN = 1.0
    cfg.MODEL.ANCHOR_HEAD.LOSS.CLS_GAIN = 0.5
    # Weights of the positive targets in the cross entropies.
    cfg.MODEL.ANCHOR_HEAD.LOSS.OBJ_POS_WEIGHT = 1.0
    cfg.MODEL.ANCHOR_HEAD.LOSS.CLS_POS_WEIGHT = 1.0
    # Above 0, the cross entropies become focal losses with this gamma.
    cfg.MODEL.ANCHOR_HEAD.LOSS.FOCAL_GAMMA = 0.0
    # Class targets become 1 - s/2 and s/2.
    cfg.MODEL.ANCHOR_HEAD.LOSS.LABEL_SMOOTHING = 0.0
    # Weight of each level's objectness, finest first.
    cfg.MODEL.ANCHOR_HEAD.LOSS.OBJ_LEVEL_WEIGHTS = [4.0, 1.0, 0.4]


def _add_distribution_head(cfg: CN) -> None:
    cfg.MODEL.DISTRIBUTION_HEAD = CN()
    # A side of a box is the mean of a distribution over this many distances: 0, 1, 2, ... strides.
    cfg.MODEL.DISTRIBUTION_HEAD.NUM_BINS = 16
    # Width of the class branches. 0: as published, which is the number of classes, but at most 100 and at least the
    # channels of the finest level; set it where weights are used for another number of classes.
    cfg.MODEL.DISTRIBUTION_HEAD.CLASS_CHANNELS = 0
    cfg.MODEL.DISTRIBUTION_HEAD.ASSIGNER = CN()
    # Each box claims the CANDIDATES predictions with the largest score^ALPHA * IoU^BETA.
    cfg.MODEL.DISTRIBUTION_HEAD.ASSIGNER.ALPHA = 0.5
    cfg.MODEL.DISTRIBUTION_HEAD.ASSIGNER.BETA = 6.0
    cfg.MODEL.DISTRIBUTION_HEAD.ASSIGNER.CANDIDATES = 10
    cfg.MODEL.DISTRIBUTION_HEAD.LOSS = CN()
    # Gains of the three terms: boxes by their IoU, classes, and distributions of the sides.
    cfg.MODEL.DISTRIBUTION_HEAD.LOSS.BOX_GAIN = 7.5
    cfg.MODEL.DISTRIBUTION_HEAD.LOSS.CLS_GAIN = 0.5
    cfg.MODEL.DISTRIBUTION_HEAD.LOSS.BINS_GAIN = 1.5


def _add_yolox_head(cfg: CN) -> None:
    cfg.MODEL.YOLOX_HEAD = CN()
    # Which predictions learn which boxes:
    #   "SimOTA": as published; near the centre of a box, those that cost it least, as many as the best overlap with it
    #   "TaskAligned": the ten inside a box for which score and overlap together are largest
    cfg.MODEL.YOLOX_HEAD.ASSIGNER = "SimOTA"
    cfg.MODEL.YOLOX_HEAD.LOSS = CN()
    # Gains of the terms; the published values.
    cfg.MODEL.YOLOX_HEAD.LOSS.BOX_GAIN = 5.0
    cfg.MODEL.YOLOX_HEAD.LOSS.OBJ_GAIN = 1.0
    cfg.MODEL.YOLOX_HEAD.LOSS.CLS_GAIN = 1.0
    # Gain of the L1 distance of box outputs, a term that begins when mosaic and mixup end (INPUT.AUG.STRONG_OFF_ITERS);
    # 0: there is none.
    cfg.MODEL.YOLOX_HEAD.LOSS.L1_GAIN = 1.0


def _add_solver(cfg: CN) -> None:
    cfg.SOLVER = CN()
    # Trainings one after the other, each from the weights that the previous one chose: a list of [name, config file].
    # A file is relative to this config and states only what differs; its OUTPUT_DIR is OUTPUT_DIR/name. Empty: one
    # training.
    cfg.SOLVER.STAGES = []
    # "SGD" (with SOLVER.MOMENTUM and SOLVER.NESTEROV) or "AdamW" (SOLVER.MOMENTUM is its first beta).
    cfg.SOLVER.OPTIMIZER = "SGD"
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.MOMENTUM = 0.937
    cfg.SOLVER.NESTEROV = True
    # For weights, but not for biases and norms; scaled by IMS_PER_BATCH * accumulation / NOMINAL_BATCH_SIZE.
    cfg.SOLVER.WEIGHT_DECAY = 0.0005
    # Shape of the decay from BASE_LR to BASE_LR * LR_FINAL_FACTOR: "linear" or "cosine".
    cfg.SOLVER.LR_SCHEDULER_NAME = "linear"
    cfg.SOLVER.LR_FINAL_FACTOR = 0.01
    # Whether the rate changes once an "epoch" (as in the original recipe) or every "iteration".
    cfg.SOLVER.LR_DECAY_PER = "iteration"
    # Iterations of a training.
    cfg.SOLVER.MAX_ITER = 40000
    # Iterations that count as an epoch; 0: one pass over the training set.
    cfg.SOLVER.ITERS_PER_EPOCH = 0
    # Iterations over which rates, momentum and accumulation warm up, linearly.
    cfg.SOLVER.WARMUP_ITERS = 100
    # Values at the start of the warm-up: momentum, and learning rate of biases.
    cfg.SOLVER.WARMUP_MOMENTUM = 0.8
    cfg.SOLVER.WARMUP_BIAS_LR = 0.1
    # Images of one iteration, of all processes together.
    cfg.SOLVER.IMS_PER_BATCH = 16
    # Gradients are accumulated over about NOMINAL_BATCH_SIZE / IMS_PER_BATCH iterations; 0: never. Gradients after the
    # last step of a training change no weights. Checkpoints wait for the next step, also on Ctrl-C.
    cfg.SOLVER.NOMINAL_BATCH_SIZE = 64
    # Iterations between two checkpoints model_{iteration}.pth, from which --resume goes on; 0: only one at the end.
    cfg.SOLVER.CHECKPOINT_PERIOD = 5000
    # How many of the newest model_{iteration}.pth are kept.
    cfg.SOLVER.CHECKPOINTS_TO_KEEP = 2
    cfg.SOLVER.AMP = CN()
    # Whether to train in mixed precision.
    cfg.SOLVER.AMP.ENABLED = False
    # Its type: "float16", with scaled gradients, "bfloat16", or "auto": float16 on a GPU, and on the CPU bfloat16 if it
    # has instructions for it (else float32).
    cfg.SOLVER.AMP.DTYPE = "auto"
    cfg.SOLVER.EMA = CN()
    # Evaluate and release the exponential moving average of the weights: decay DECAY * (1 - exp(-updates / WARMUP)).
    cfg.SOLVER.EMA.ENABLED = True
    cfg.SOLVER.EMA.DECAY = 0.9999
    cfg.SOLVER.EMA.WARMUP = 2000
    # Evaluate the weights themselves, too, in every evaluation while training, which then takes twice the time; their
    # scores are named raw/... .
    cfg.SOLVER.EMA.EVAL_RAW = False
    # End the training after this many evaluations without a better TEST.BEST_METRIC; 0: never. An evaluation that
    # cannot compute it does not count.
    cfg.SOLVER.EARLY_STOPPING_PATIENCE = 0
    # Hours that the training may take, with all stages and interrupted runs; 0: no limit. If the time measured so far
    # shows that it would take longer, iterations are left out and the decay of the learning rate ends earlier.
    cfg.SOLVER.MAX_HOURS = 0.0


def _add_test(cfg: CN) -> None:
    cfg.TEST = CN()
    # Iterations between two evaluations while training; 0: only one at the end.
    cfg.TEST.EVAL_PERIOD = 0
    # The score that decides which weights become model_best.pth.
    cfg.TEST.BEST_METRIC = "bbox/AP75"
    # Largest number of boxes found in an image.
    cfg.TEST.DETECTIONS_PER_IMAGE = 100
    # Images in a batch of an evaluation or inference; only images of the same padded shape share one. 0: 8 on a GPU, 1
    # on the CPU, where a larger batch saves no time.
    cfg.TEST.IMS_PER_BATCH = 0
    # Type in which the network computes for evaluations, also while training, and for inference: "float32", "float16",
    # "bfloat16", or "auto": float16 on a GPU, and float32 on the CPU. Boxes and scores are float32 in any case.
    cfg.TEST.DTYPE = "auto"
    cfg.TEST.AUG = CN()
    # Whether several views of an image, enlarged, reduced and mirrored, are inferred (test-time augmentation).
    cfg.TEST.AUG.ENABLED = False
    # How the boxes of several views (test-time augmentation) or several models of one image are joined:
    #   "nms": the best box suppresses the others (for views, all candidates go through one suppression, as published)
    #   "soft_nms": the best box lowers the scores of others, the more they overlap (Gaussian; Bodla et al. 2017)
    #   "wbf": boxes that overlap are averaged, weighted by score (weighted boxes fusion; Solovyev et al. 2021)
    cfg.TEST.FUSION = CN()
    cfg.TEST.FUSION.NAME = "nms"
    # IoU from which on "nms" and "wbf" take boxes for the same object. For "wbf" it should be above
    # MODEL.YOLO.NMS_THRESH_TEST, or an object that one view or model finds twice lowers the mean.
    cfg.TEST.FUSION.IOU_THRESH = 0.75
    # Sigma of "soft_nms", which multiplies scores by exp(-IoU^2 / sigma).
    cfg.TEST.FUSION.SOFT_NMS_SIGMA = 0.5
    # Changes that infer.py --max-hours may make if the config would take too long, the best first: a list of lists
    # [KEY, VALUE, KEY, VALUE, ...], of which one is chosen.
    cfg.TEST.FALLBACKS = [["TEST.AUG.ENABLED", False]]
    # Size limit of submission.json in MB of 10^6 bytes.
    cfg.TEST.SUBMISSION_MB = 20.0
    # Largest number of boxes of an image in submission.json.
    cfg.TEST.SUBMISSION_MAX_PER_IMAGE = 50
    # Boxes of a class that go into submission.json before all others compete for its size: "stroller=500" for the best
    # 500 of a class, "500" for as many of every class that is not named.
    cfg.TEST.SUBMISSION_CLASS_FLOORS = ()
    # How submission.json is spaced: "compact", without spaces, or "original", as by Python's json.dump.
    cfg.TEST.SUBMISSION_SPACING = "compact"
