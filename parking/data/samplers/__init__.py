from parking.data.samplers.class_balanced_sampler import ClassBalancedTrainingSampler, class_balanced_weights
from parking.data.samplers.repeat_factor_sampler import RepeatFactorTrainingSampler, compute_repeat_factors
from parking.data.samplers.training_sampler import PositionedTrainingSampler, decode_position, encode_position

__all__ = [
    "ClassBalancedTrainingSampler",
    "PositionedTrainingSampler",
    "RepeatFactorTrainingSampler",
    "class_balanced_weights",
    "compute_repeat_factors",
    "decode_position",
    "encode_position",
]
