"""Training objectives of encoders, one file each, registered here by name."""

from idiolect.training.objectives.objective_registry import ObjectiveEntry, register

_ALL_KINDS = ("causal", "bidirectional", "encoder-decoder")

register(
    ObjectiveEntry(
        name="simcse",
        verb="tune",
        summary="two dropout passes over a text are a positive pair",
        home="idiolect.encoding.objectives.simcse:SimCSE",
        network_kinds=_ALL_KINDS,
    ),
    ObjectiveEntry(
        name="tsdae",
        verb="tune",
        summary="rebuild a text from the vector of a damaged copy",
        home="idiolect.encoding.objectives.tsdae:TSDAE",
        network_kinds=_ALL_KINDS,
    ),
    ObjectiveEntry(
        name="imitate",
        verb="tune",
        summary="reproduce the vectors of a teacher, the encoder before its vocabulary grew",
        home="idiolect.encoding.objectives.imitation:Imitation",
        network_kinds=_ALL_KINDS,
    ),
)
