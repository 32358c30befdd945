"""All configuration keys, each with its meaning, unit, options and default.

Settings that detectron2 also has are called as in detectron2. For each key, ``checks.py`` needs a row with the allowed
values and the tasks that use the key. The defaults are those of a nano model; the files in ``configs/`` state only what
differs from them.
"""

from detectron2.config import CfgNode as CN

from parking.utils.constants import CSP_DARKNET_PAFPN

from . import compat


def make_defaults() -> CN:
    """Return a new config with all keys and their defaults."""
    cfg = CN()
    # Version of the format of configs, weights and checkpoints (see compat.py). A yaml without it has version 1.
    cfg.VERSION = compat.CURRENT_VERSION
    # Folder for everything that a training writes.
    cfg.OUTPUT_DIR = "./output"
    # 0 or more: the seed of random numbers. Each training with the same seed ends with the same weights, bit for bit,
    # even if it is interrupted or the number of data workers changes; a GPU uses deterministic kernels, which are
    # slower. -1: each training has a new seed.
    cfg.SEED = -1
    # Whether cuDNN tries out which convolution algorithm is fastest for each new input shape.
    cfg.CUDNN_BENCHMARK = False
    _add_data(cfg)
    _add_model(cfg)
    _add_solver(cfg)
    _add_test(cfg)
    return cfg


def _add_data(cfg: CN) -> None:
    cfg.DATASETS = CN()
    # Folder with the challenge's data (see datasets/README.md), from which the data sets parking_train, parking_val,
    # parking_trainval and parking_test are made.
    cfg.DATASETS.ROOT = "/DATA"
    # How Train.json is divided into parking_train and parking_val.
    #   "sequence": VAL_FRACTION of the images are parking_val; sequences stay whole, because their frames look alike
    #   "entry": parking_val is the 3,000 images that our entry to the 2022 challenge drew at random; an error
    #       unless there are more than 3,000 images
    #   "all": all images are parking_train, and parking_val is empty
    cfg.DATASETS.SPLIT = "sequence"
    # Share of the images that the "sequence" split keeps for validation, 0..1.
    cfg.DATASETS.VAL_FRACTION = 0.12
    # Seed of the "sequence" split.
    cfg.DATASETS.SPLIT_SEED = 0
    # What happens to faulty annotations and images: "strict" stops with an error; "repair" repairs or leaves out what
    # it can, and logs how many. The table in datasets/README.md lists all faults.
    cfg.DATASETS.POLICY = "strict"
    # Whether a json may name images by absolute paths outside its image folder. Names with ".." never may.
    cfg.DATASETS.ALLOW_OUTSIDE = False
    # Other data sets in COCO format: a list of [name, json file, image folder]. Classes are the json's categories.
    cfg.DATASETS.COCO = []
    # Names of the data sets to train on and to evaluate on.
    cfg.DATASETS.TRAIN = ("parking_train",)
    cfg.DATASETS.TEST = ("parking_val",)
    cfg.DATALOADER = CN()
    # Number of data workers of each process that trains or infers; 0: the process itself reads and augments images.
    cfg.DATALOADER.NUM_WORKERS = 4
    # Order of the training images.
    #   "TrainingSampler": shuffled passes
    #   "ClassBalancedTrainingSampler": images are drawn with replacement, those of rare and badly detected classes more
    #       often; the probabilities are set anew for each epoch of SOLVER.ITERS_PER_EPOCH iterations
    #   "RepeatFactorTrainingSampler": shuffled passes in which images of rare classes are repeated. A class is rare if
    #       the share of images that contain it is below DATALOADER.REPEAT_THRESHOLD (0..1)
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"
    cfg.DATALOADER.REPEAT_THRESHOLD = 0.0
    # How often an image of a rare class occurs in a pass: if True, sqrt(REPEAT_THRESHOLD / share of images) times; if
    # False, REPEAT_THRESHOLD / share of images times.
    cfg.DATALOADER.REPEAT_SQRT = True

    cfg.INPUT = CN()
    # Height and width of a training sample in pixels; both must be multiples of the model's largest stride.
    cfg.INPUT.SIZE_TRAIN = [640, 640]
    # Length in pixels to which the longer side of an image is resized for evaluation and inference.
    cfg.INPUT.SIZE_TEST = 640
    # Whether pictures are turned upright by their EXIF orientation, before anything else. Boxes and sizes in
    # annotations and results refer to the picture after this step.
    #   "auto": a picture is used upright or as stored, whichever has the size that a json or an image list states. If
    #       both have this size (square pictures, and pictures that are mirrored or turned by half), the picture is used
    #       upright if the stated sizes require this for all other pictures of the json that have an EXIF orientation,
    #       otherwise as stored. A picture without a stated size is used upright.
    #   "apply": always upright
    #   "ignore": always as stored
    cfg.INPUT.EXIF_ORIENTATION = "auto"
    # Where training keeps decoded images, resized to SIZE_TRAIN, instead of decoding them each time: "none" (nowhere),
    # "ram" or "disk".
    cfg.INPUT.CACHE = "none"
    # Format of the cache: "raw" pixels, which lose nothing (2.8 MB for an image at 1280), or "jpeg", which takes an
    # eighth of their size or less.
    cfg.INPUT.CACHE_FORMAT = "raw"
    # Folder of the "disk" cache; "": the folder "parking" in the user's cache folder.
    cfg.INPUT.CACHE_DIR = ""
    # Largest allowed size of the cache in GB (10^9 bytes), checked when a training starts (for "jpeg" by an estimate).
    cfg.INPUT.CACHE_GB = 20.0
    cfg.INPUT.AUG = CN()
    # Probability that a sample is a mosaic of four images.
    cfg.INPUT.AUG.MOSAIC_PROB = 1.0
    # Probability that a mosaic is blended with a second one.
    cfg.INPUT.AUG.MIXUP_PROB = 0.0
    # Mosaic and mixup are off for this many iterations at the end of a training; 0: they stay on until the end.
    cfg.INPUT.AUG.STRONG_OFF_ITERS = 0
    # Limits of a random affine map: rotation of +-DEGREES, translation by +-TRANSLATE times the sides of the sample,
    # scale from 1 - SCALE to 1 + SCALE, shear of +-SHEAR degrees, perspective of +-PERSPECTIVE per pixel (0..0.001).
    cfg.INPUT.AUG.DEGREES = 0.0
    cfg.INPUT.AUG.TRANSLATE = 0.1
    cfg.INPUT.AUG.SCALE = 0.5
    cfg.INPUT.AUG.SHEAR = 0.0
    cfg.INPUT.AUG.PERSPECTIVE = 0.0
    # Hue, saturation and value are each multiplied by a random factor from 1 - x to 1 + x, with these values of x.
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
    # File with the weights to start a training from, to evaluate, or to infer with; "": start from random weights.
    cfg.MODEL.WEIGHTS = ""
    # The network gets RGB values (pixel - PIXEL_MEAN) / PIXEL_STD, where pixel is 0..255.
    cfg.MODEL.PIXEL_MEAN = [0.0, 0.0, 0.0]
    cfg.MODEL.PIXEL_STD = [255.0, 255.0, 255.0]
    cfg.MODEL.BACKBONE = CN()
    # Name of a registered backbone: this project's own, one of detectron2's (see below), or one of yours.
    cfg.MODEL.BACKBONE.NAME = CSP_DARKNET_PAFPN
    cfg.MODEL.HEAD = CN()
    # Name of a head in DENSE_HEAD_REGISTRY. A head reads MODEL.YOLO.NUM_CLASSES, MODEL.YOLO.IN_FEATURES and a group of
    # its own, such as MODEL.ANCHOR_HEAD.
    cfg.MODEL.HEAD.NAME = "AnchorHead"
    _add_anchor_head(cfg)
    _add_distribution_head(cfg)
    _add_yolox_head(cfg)
    _add_detectron2_backbones(cfg)

    # Only this project's own backbone uses the groups CSP_DARKNET and PAFPN, and MODEL.YOLO.DEPTH_MULTIPLE and
    # WIDTH_MULTIPLE; with one of detectron2's backbones, they must keep their defaults.
    cfg.MODEL.CSP_DARKNET = CN()
    # Stages whose features the backbone returns. It ends with the last of them: "dark5" in P5 models, "dark6" in P6.
    cfg.MODEL.CSP_DARKNET.OUT_FEATURES = ["dark3", "dark4", "dark5"]
    # "yolov5", or "yolox" (only for P5 models): the backbone takes the number of blocks in each stage, and the order of
    # layers in the last stage, from this model.
    cfg.MODEL.CSP_DARKNET.LAYOUT = "yolov5"
    cfg.MODEL.PAFPN = CN()
    # Stages that the neck joins, finest first. From dark3, dark4, ... the neck makes the outputs p3, p4, ...
    cfg.MODEL.PAFPN.IN_FEATURES = ["dark3", "dark4", "dark5"]

    cfg.MODEL.YOLO = CN()
    # Number of classes; 0: as many as the training set has, or for infer.py as many as the weights have.
    cfg.MODEL.YOLO.NUM_CLASSES = 14
    # From which class of MODEL.WEIGHTS each class of the data starts: pairs [class of the data, class of the weights].
    # A class that is not listed starts from the class of the same name. If the weights have no such class, or if the
    # class is listed with '', it starts from random weights.
    cfg.MODEL.YOLO.CLASS_MAP = []
    # Depth (number of blocks) and width (channels) of backbone and neck, relative to those of the large model.
    cfg.MODEL.YOLO.DEPTH_MULTIPLE = 0.33
    cfg.MODEL.YOLO.WIDTH_MULTIPLE = 0.25
    # Whether each 3x3 convolution of this project's own backbone (except its stem), its neck and the YOLOX head is
    # replaced by a depthwise 3x3 and a 1x1 convolution, which have fewer parameters and operations. It is True in
    # YOLOX-nano. detectron2's backbones and the other heads do not read it.
    cfg.MODEL.YOLO.DEPTHWISE = False
    # "BN", or "SyncBN", which computes statistics over the images of all GPUs.
    cfg.MODEL.YOLO.NORM = "BN"
    # Features that the head gets, finest first.
    cfg.MODEL.YOLO.IN_FEATURES = ["p3", "p4", "p5"]
    # Score, 0..1, that a box must exceed to become a candidate for the NMS.
    cfg.MODEL.YOLO.SCORE_THRESH_TEST = 0.05
    # True: each class of a box that scores above the threshold is a candidate. False: only the best class of a box is.
    cfg.MODEL.YOLO.MULTI_LABEL_TEST = True
    # If the IoU of two boxes of the same class is above this, the NMS drops the box with the lower score.
    cfg.MODEL.YOLO.NMS_THRESH_TEST = 0.5
    # The NMS gets at most this many candidates of an image, those with the highest scores.
    cfg.MODEL.YOLO.PRE_NMS_TOPK_TEST = 30000


def _add_detectron2_backbones(cfg: CN) -> None:
    """Add the keys that only detectron2's backbones use; MODEL.FPN is used only by those with a pyramid.

    Keys that MODEL.BACKBONE.NAME does not use must keep their defaults (see ``checks.py``).
    """
    # Number of first stages that are not trained; 1: the stem, 2: the stem and res2, and so on. detectron2's default is
    # 2, which suits its pretrained weights.
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS = CN()
    cfg.MODEL.RESNETS.DEPTH = 50
    # Stages that return features, finest first: "stem" (stride 4), "res2" (4), "res3" (8), "res4" (16), "res5" (32)
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    # Number of groups of the 3x3 convolutions; the network is a ResNeXt if this is above 1.
    cfg.MODEL.RESNETS.NUM_GROUPS = 1
    # "BN", "SyncBN" or "GN". detectron2's "FrozenBN" is not allowed, because it never learns.
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 64
    # True: the first convolution (1x1) of a bottleneck has the stride. False: the 3x3 convolution has it.
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = True
    # Dilation of res5: 1 or 2. With 2, the stride of res5 is 16 instead of 32.
    cfg.MODEL.RESNETS.RES5_DILATION = 1
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 256
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 64
    cfg.MODEL.FPN = CN()
    # Stages that the pyramid joins, finest first, up to res5. From res3, res4, ... it makes p3, p4, ...
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 256
    # Norm layers of the pyramid: "" (none), "BN", "SyncBN" or "GN".
    cfg.MODEL.FPN.NORM = ""
    # How a finer and a coarser level are joined: "sum" or "avg" (their mean).
    cfg.MODEL.FPN.FUSE_TYPE = "sum"


def _add_anchor_head(cfg: CN) -> None:
    cfg.MODEL.ANCHOR_HEAD = CN()
    # Anchors of each level, finest first: [width, height] in pixels of the network's input.
    cfg.MODEL.ANCHOR_HEAD.ANCHORS = [
        [[10, 13], [16, 30], [33, 23]],
        [[30, 61], [62, 45], [59, 119]],
        [[116, 90], [156, 198], [373, 326]],
    ]
    # Whether the anchors in the file MODEL.WEIGHTS, if it holds any, are used instead of ANCHORS.
    cfg.MODEL.ANCHOR_HEAD.ANCHORS_FROM_WEIGHTS = True
    # A box is matched with an anchor if both their widths and their heights differ by less than this factor.
    cfg.MODEL.ANCHOR_HEAD.ANCHOR_RATIO = 4.0
    cfg.MODEL.ANCHOR_HEAD.LOSS = CN()
    # Gains of the three loss terms for 3 levels, 80 classes and 640 x 640 pixels. They are scaled for other models.
    cfg.MODEL.ANCHOR_HEAD.LOSS.BOX_GAIN = 0.05
    cfg.MODEL.ANCHOR_HEAD.LOSS.OBJ_GAIN = 1.0
    cfg.MODEL.ANCHOR_HEAD.LOSS.CLS_GAIN = 0.5
    # Weights of the positive targets in the cross entropies.
    cfg.MODEL.ANCHOR_HEAD.LOSS.OBJ_POS_WEIGHT = 1.0
    cfg.MODEL.ANCHOR_HEAD.LOSS.CLS_POS_WEIGHT = 1.0
    # If this is above 0, the cross entropies become focal losses with this gamma.
    cfg.MODEL.ANCHOR_HEAD.LOSS.FOCAL_GAMMA = 0.0
    # Label smoothing s: class targets are 1 - s/2 and s/2 instead of 1 and 0.
    cfg.MODEL.ANCHOR_HEAD.LOSS.LABEL_SMOOTHING = 0.0
    # Weight of the objectness term of each level, finest first.
    cfg.MODEL.ANCHOR_HEAD.LOSS.OBJ_LEVEL_WEIGHTS = [4.0, 1.0, 0.4]


def _add_distribution_head(cfg: CN) -> None:
    cfg.MODEL.DISTRIBUTION_HEAD = CN()
    # The distance to a side of a box is the mean of a distribution over this many values: 0, 1, 2, ... strides.
    cfg.MODEL.DISTRIBUTION_HEAD.NUM_BINS = 16
    # Channels of the class branches. 0: the published rule, max(channels of the finest level, min(NUM_CLASSES, 100)).
    # If MODEL.WEIGHTS were trained for another number of classes, set the number of channels of these weights.
    cfg.MODEL.DISTRIBUTION_HEAD.CLASS_CHANNELS = 0
    cfg.MODEL.DISTRIBUTION_HEAD.ASSIGNER = CN()
    # A box is learned by the CANDIDATES predictions whose score^ALPHA * IoU^BETA is largest.
    cfg.MODEL.DISTRIBUTION_HEAD.ASSIGNER.ALPHA = 0.5
    cfg.MODEL.DISTRIBUTION_HEAD.ASSIGNER.BETA = 6.0
    cfg.MODEL.DISTRIBUTION_HEAD.ASSIGNER.CANDIDATES = 10
    cfg.MODEL.DISTRIBUTION_HEAD.LOSS = CN()
    # Gains of the three loss terms: IoU of boxes, classes, and distributions of the distances to the sides.
    cfg.MODEL.DISTRIBUTION_HEAD.LOSS.BOX_GAIN = 7.5
    cfg.MODEL.DISTRIBUTION_HEAD.LOSS.CLS_GAIN = 0.5
    cfg.MODEL.DISTRIBUTION_HEAD.LOSS.BINS_GAIN = 1.5


def _add_yolox_head(cfg: CN) -> None:
    cfg.MODEL.YOLOX_HEAD = CN()
    # Which predictions learn which boxes:
    #   "SimOTA": as published. Each box gets the n predictions near its centre that have the lowest cost; n is the sum
    #       of the box's ten largest IoUs.
    #   "TaskAligned": each box gets the ten predictions inside it that are best in score and overlap together.
    cfg.MODEL.YOLOX_HEAD.ASSIGNER = "SimOTA"
    cfg.MODEL.YOLOX_HEAD.LOSS = CN()
    # Gains of the box, objectness and class terms; the defaults are the published values.
    cfg.MODEL.YOLOX_HEAD.LOSS.BOX_GAIN = 5.0
    cfg.MODEL.YOLOX_HEAD.LOSS.OBJ_GAIN = 1.0
    cfg.MODEL.YOLOX_HEAD.LOSS.CLS_GAIN = 1.0
    # Gain of the loss term for the L1 distance of box outputs. The term is used only after mosaic and mixup have ended
    # (INPUT.AUG.STRONG_OFF_ITERS); 0: it is never used.
    cfg.MODEL.YOLOX_HEAD.LOSS.L1_GAIN = 1.0


def _add_solver(cfg: CN) -> None:
    cfg.SOLVER = CN()
    # Stages: trainings one after the other, each of which starts from the weights that the previous one chose. A list
    # of [name, config file]; a file is relative to this config and states only what differs. A stage writes to
    # OUTPUT_DIR/name. Empty: there is only one training.
    cfg.SOLVER.STAGES = []
    # "SGD" (with SOLVER.MOMENTUM and SOLVER.NESTEROV) or "AdamW" (SOLVER.MOMENTUM is its first beta).
    cfg.SOLVER.OPTIMIZER = "SGD"
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.MOMENTUM = 0.937
    cfg.SOLVER.NESTEROV = True
    # Weight decay of all parameters except biases and norms. It is multiplied by the number of images that contribute
    # to a step of the optimizer, and divided by NOMINAL_BATCH_SIZE.
    cfg.SOLVER.WEIGHT_DECAY = 0.0005
    # Shape of the decay from BASE_LR to BASE_LR * LR_FINAL_FACTOR: "linear" or "cosine".
    cfg.SOLVER.LR_SCHEDULER_NAME = "linear"
    cfg.SOLVER.LR_FINAL_FACTOR = 0.01
    # When the learning rate changes: every "epoch" (as in the YOLOv5 recipe) or every "iteration".
    cfg.SOLVER.LR_DECAY_PER = "iteration"
    # Number of iterations of a training.
    cfg.SOLVER.MAX_ITER = 40000
    # Number of iterations that count as an epoch; 0: as many as one pass over the training set takes.
    cfg.SOLVER.ITERS_PER_EPOCH = 0
    # Number of iterations in which learning rates, momentum and accumulation warm up linearly.
    cfg.SOLVER.WARMUP_ITERS = 100
    # Values at the start of the warm-up: momentum, and learning rate of biases.
    cfg.SOLVER.WARMUP_MOMENTUM = 0.8
    cfg.SOLVER.WARMUP_BIAS_LR = 0.1
    # Number of images in one iteration, for all processes together.
    cfg.SOLVER.IMS_PER_BATCH = 16
    # The optimizer steps with gradients summed over about NOMINAL_BATCH_SIZE / IMS_PER_BATCH iterations; 0: it steps in
    # every iteration. Gradients after the last step of a training are not used. While gradients are being summed, a
    # checkpoint, also one after Ctrl-C, waits for the optimizer's step.
    cfg.SOLVER.NOMINAL_BATCH_SIZE = 64
    # Iterations between two checkpoints model_{iteration}.pth, from which --resume continues; 0: only one at the end.
    cfg.SOLVER.CHECKPOINT_PERIOD = 5000
    # Number of checkpoints model_{iteration}.pth to keep, the newest ones.
    cfg.SOLVER.CHECKPOINTS_TO_KEEP = 2
    cfg.SOLVER.AMP = CN()
    # Whether to train in mixed precision.
    cfg.SOLVER.AMP.ENABLED = False
    # Type for mixed precision: "float16", with scaled gradients; "bfloat16"; or "auto": float16 on a GPU, and on a CPU
    # bfloat16 if the CPU has instructions for that, else float32.
    cfg.SOLVER.AMP.DTYPE = "auto"
    cfg.SOLVER.EMA = CN()
    # Whether the exponential moving average of the weights is evaluated and saved in place of the weights themselves.
    # The decay of the average is DECAY * (1 - exp(-updates / WARMUP)).
    cfg.SOLVER.EMA.ENABLED = True
    cfg.SOLVER.EMA.DECAY = 0.9999
    cfg.SOLVER.EMA.WARMUP = 2000
    # Whether evaluations during training also evaluate the weights themselves, which takes twice the time. The names of
    # their scores begin with raw/.
    cfg.SOLVER.EMA.EVAL_RAW = False
    # End the training after this many evaluations without a better TEST.BEST_METRIC; 0: never. An evaluation in which
    # TEST.BEST_METRIC cannot be computed does not count.
    cfg.SOLVER.EARLY_STOPPING_PATIENCE = 0
    # Hours that the training may take, including all stages and interrupted runs; 0: no limit. A training that
    # would take longer ends after fewer iterations, in which its learning rate decays completely.
    cfg.SOLVER.MAX_HOURS = 0.0


def _add_test(cfg: CN) -> None:
    cfg.TEST = CN()
    # Iterations between two evaluations during a training; 0: only one at the end.
    cfg.TEST.EVAL_PERIOD = 0
    # The score that decides which weights become model_best.pth.
    cfg.TEST.BEST_METRIC = "bbox/AP75"
    # Largest number of detections in an image; the best ones are kept.
    cfg.TEST.DETECTIONS_PER_IMAGE = 100
    # Largest number of images in a batch of an evaluation or inference; only images of the same padded shape share a
    # batch. 0: 8 on a GPU, and 1 on the CPU, where larger batches save no time.
    cfg.TEST.IMS_PER_BATCH = 0
    # Type in which the network computes in inference and in evaluations, also during training: "float32", "float16",
    # "bfloat16", or "auto": float16 on a GPU, and float32 on the CPU. Boxes and scores are always float32.
    cfg.TEST.DTYPE = "auto"
    cfg.TEST.AUG = CN()
    # Test-time augmentation: whether the model also gets enlarged, reduced and mirrored views of each image.
    cfg.TEST.AUG.ENABLED = False
    # How the boxes from several views (test-time augmentation) or several models are joined:
    #   "nms": the best of overlapping boxes suppresses the others. All views share one NMS, as published
    #   "soft_nms": the best box lowers the scores of others by their overlap with it (Gaussian; Bodla et al. 2017)
    #   "wbf": overlapping boxes are averaged, weighted by their scores (weighted boxes fusion; Solovyev et al. 2021)
    cfg.TEST.FUSION = CN()
    cfg.TEST.FUSION.NAME = "nms"
    # "nms" and "wbf" take two boxes with at least this IoU for the same object. For "wbf" it should be above
    # MODEL.YOLO.NMS_THRESH_TEST; otherwise, if a view or model has two boxes for an object, the worse one lowers the
    # mean score.
    cfg.TEST.FUSION.IOU_THRESH = 0.75
    # Sigma of "soft_nms", which multiplies scores by exp(-IoU^2 / sigma).
    cfg.TEST.FUSION.SOFT_NMS_SIGMA = 0.5
    # Changes of the config for infer.py --max-hours, the best first: a list of lists [KEY, VALUE, KEY, VALUE, ...]. If
    # the config as it is would take too long, the first list that is fast enough is used.
    cfg.TEST.FALLBACKS = [["TEST.AUG.ENABLED", False]]
    # Size limit of submission.json in MB of 10^6 bytes.
    cfg.TEST.SUBMISSION_MB = 20.0
    # Largest number of boxes in an image in submission.json.
    cfg.TEST.SUBMISSION_MAX_PER_IMAGE = 50
    # submission.json first gets this many of the best boxes of a class; all other boxes compete for the remaining size.
    # "stroller=500" sets the number for one class, "500" for each class that is not named.
    cfg.TEST.SUBMISSION_CLASS_FLOORS = ()
    # Spaces in submission.json: "compact" for none, "original" for those that Python's json.dump writes.
    cfg.TEST.SUBMISSION_SPACING = "compact"
