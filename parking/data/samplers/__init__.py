from parking.data.samplers.training_sampler import PositionedTrainingSampler, decode_position, encode_position

__all__ = ["PositionedTrainingSampler", "decode_position", "encode_position"]
